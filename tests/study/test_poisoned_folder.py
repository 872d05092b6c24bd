"""Run folders and studies that name code: reading them runs none of it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fedaudit
from fedaudit.cli import cli
from fedaudit.core.errors import ConfigError, RunFolderError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.study import manifest, session
from fedaudit.study.named_code import code_in
from fedaudit.study.study_file import canonical, digest, load_study, study_from_mapping

COMMANDS = (
    ("report", "RUN"),
    ("report", "RUN", "--evidence", "none", "--fail-on", "high"),
    ("compare", "RUN"),
    ("recommend", "RUN", "--max-reid", "0.5", "--min-accuracy", "0.5"),
    ("run", "RUN"),
    ("why", "RUN"),
)


def touch(*, command: str, prior: str) -> None:
    """What a stranger's attack may do where it is made; it says that it has a prior."""
    Path(command.removeprefix("touch ")).touch()


def _poison(kind: str, canary: Path) -> dict[str, Any]:
    """What a stranger writes into a scenario, in each place that names a plugin."""
    direct = {"name": "os:system", "label": "x", "command": f"touch {canary}"}
    (prior := canary.with_suffix(".safetensors")).touch()
    attack = {**direct, "name": f"{__name__}:touch", "prior": str(prior)}
    nested = {"name": "chain", "label": "x", "parts": [direct]}
    places: dict[str, dict[str, Any]] = {
        "defense": {"defenses": [direct]},
        "nested": {"defenses": [nested]},
        "attack": {"attacks": [direct]},
        "prior": {"attacks": [attack]},
        "method": {"method": direct},
        "network": {"network": direct},
        "second": {"defenses": [{"name": "none", "label": "none"}, direct]},
    }
    return places[kind]


def _signed(content: dict[str, Any]) -> str:
    """The manifest, with hashes that fit: a stranger can compute them, too."""
    study = study_from_mapping(content["study"])
    content = content | {"digest": digest(study)}
    rest = {key: value for key, value in content.items() if key != "sha256"}
    whole = hashlib.sha256(canonical(rest).encode()).hexdigest()
    return json.dumps(content | {"sha256": whole})


def _run(path: Path, poison: Mapping[str, Any]) -> Path:
    study = Study(
        "s", (Scenario("fresh", targets=2, attacks=(Choice("dlg"),)),), deployed=("none",)
    )
    with session.open_run(path, study):
        pass
    file = path / manifest.FILE
    content = json.loads(file.read_text())
    content["study"]["scenario"][0].update(poison)
    file.write_text(_signed(content))
    return path


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that any code of the stranger's would make."""
    yield tmp_path / "PWNED"
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    "kind", ["defense", "nested", "attack", "prior", "method", "network", "second"]
)
def test_no_command_runs_what_a_run_folder_names(kind: str, canary: Path, tmp_path: Path) -> None:
    run = _run(tmp_path / "run", _poison(kind, canary))
    for command in COMMANDS:
        words = [str(run) if word == "RUN" else word for word in command]
        result = CliRunner().invoke(cli, words, standalone_mode=False)
        assert not canary.exists(), command
        if command[0] in {"report", "compare"}:
            assert result.exception is None, result.exception
    assert (run / "report.html").exists()
    fedaudit.load(run)


def test_the_canary_would_show_it(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(_study(tmp_path / "PWNED"))
    load_study(study)  # which says, of a study, what it is: code
    assert (tmp_path / "PWNED").exists()


def _study(canary: Path) -> str:
    return (
        'name = "s"\n[[scenario]]\nname = "a"\nattacks = ["dlg"]\n'
        f'defenses = [{{name = "os:system", command = "touch {canary}"}}]\n'
    )


def test_a_dry_run_imports_no_code(canary: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(_study(canary))
    result = CliRunner().invoke(cli, ["run", str(study), "--dry-run"], standalone_mode=False)
    assert isinstance(result.exception, ConfigError)
    assert "os:system" in str(result.exception)
    assert "--load-code" in str(result.exception)


def test_a_run_says_that_it_runs_code(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(_study(tmp_path / "PWNED"))
    once = ["--budget", "1s", "--workers", "1", "--output", str(tmp_path / "run")]
    for more in (once, ["--dry-run", "--load-code"]):
        result = CliRunner().invoke(cli, ["run", str(study), *more], standalone_mode=False)
        assert "note: this study names code, which now runs: os:system" in result.stderr


def test_code_is_found_wherever_it_is_named() -> None:
    scene = Scenario(
        "a",
        network=Choice("my_code:resnet18"),
        defenses=(Choice("chain", {"parts": [{"name": "a.b:c"}]}),),
        attacks=(Choice("gan_inversion", {"prior": "d:e"}), Choice("dlg", {"steps": 3})),
    )
    folder = Choice("folder", {"path": r"C:\faces"})
    assert code_in(Study("s", (scene,), data=folder)) == ("my_code:resnet18", "a.b:c", "d:e")
    stock = replace(scene, network=Choice("torchvision:resnet18"))
    assert code_in(Study("s", (stock,), data=folder)) == ("a.b:c", "d:e")


@pytest.mark.parametrize(
    "job", ["cells/../../x", "cells/.x", "elsewhere/x", "cells/", "x", "cells/a\\b", "/etc/x"]
)
def test_a_job_that_lies_elsewhere_is_refused(tmp_path: Path, job: str) -> None:
    run = _run(tmp_path / "run", {})
    content = json.loads((run / manifest.FILE).read_text())
    content["jobs"].append(job)
    (run / manifest.FILE).write_text(_signed(content))
    with pytest.raises(RunFolderError, match="is damaged"):
        session.open_report(run)
