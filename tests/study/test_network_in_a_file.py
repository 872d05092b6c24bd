"""Studies of a network that lies in a file beside them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fedaudit
from fedaudit.cli import cli
from fedaudit.core.errors import ConfigError, FedauditError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build
from fedaudit.study.named_code import code_in
from fedaudit.study.study_file import load_study, study_from_mapping, study_to_mapping

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from click.testing import CliRunner
from networks_in_files import exported, scripted, small

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
PEOPLE = 40
STUDY = """
name = "file"
data = "orl"
size = 16
utility = false
[federation]
clients = 2
rounds = 1
[[scenario]]
name = "fresh"
network = "nets/{name}"
targets = 1
controls = false
attacks = [{{name = "inverting_gradients", steps = 2, polish = 0}}]
"""


def written(folder: Path, name: str = "mine.pt", classes: int = PEOPLE) -> Path:
    save: Callable[..., Path] = exported if name.endswith("2") else scripted
    (folder / "nets").mkdir(exist_ok=True)
    save(small(classes), folder / "nets" / name)
    (folder / "study.toml").write_text(STUDY.format(name=name), encoding="utf-8")
    return folder / "study.toml"


@pytest.mark.parametrize("name", ["mine.pt", "mine.pt2"])
def test_it_is_found_beside_the_study_and_starts_as_it_was_saved(tmp_path: Path, name: str) -> None:
    study = load_study(written(tmp_path, name))
    (scenario,) = study.scenarios
    network = scenario.network
    assert (network.name, network.label) == (str(tmp_path / "nets" / name), name)
    assert code_in(study) == (network.name,)  # what it computes is run
    assert study_from_mapping(study_to_mapping(study)) == study
    sizes = {"classes": PEOPLE, "image_size": 16}
    made = build(ModelSpec(network.name, {**network.settings, **sizes}), seed=5)
    saved = dict(small(PEOPLE).named_parameters())
    assert all(torch.equal(value, saved[key]) for key, value in made.named_parameters())


def test_a_file_that_has_changed_or_tells_too_few_apart_is_refused(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    network = study.scenarios[0].network
    scripted(small(PEOPLE, seed=1), tmp_path / "nets" / "mine.pt")
    with pytest.raises(FedauditError, match="has changed since"):
        build(ModelSpec(network.name, {**network.settings, "classes": 3, "image_size": 16}))
    with pytest.raises(FedauditError, match="tells 5 classes apart, and clients have 7"):
        load_study(written(tmp_path, classes=5))
    (tmp_path / "nets" / "mine.pt").unlink()
    with pytest.raises(FedauditError, match="there is no model file"):
        load_study(tmp_path / "study.toml")


def test_a_dry_run_does_not_run_it(tmp_path: Path) -> None:
    made = CliRunner().invoke(cli, ["run", str(written(tmp_path)), "--dry-run"])
    assert isinstance(made.exception, ConfigError | SystemExit)
    assert "--load-code" in str(made.exception) + made.output
    trusted = CliRunner().invoke(
        cli, ["run", str(tmp_path / "study.toml"), "--dry-run", "--load-code"]
    )
    assert trusted.exception is None or trusted.exit_code == 0, trusted.output


@pytest.mark.slow
def test_it_is_audited(tmp_path: Path) -> None:
    audit = fedaudit.audit(written(tmp_path), output=tmp_path / "run", workers=1)
    (row,) = audit.results.rows
    assert row.network == "mine.pt"
    assert row.measurement
    assert row.measurement.n_targets == 1
