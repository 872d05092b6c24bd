"""How a command ends: its exit code, and its one message when something fails."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedaudit.core import registry
from fedaudit.study import session

Command = Callable[..., int]


@pytest.mark.parametrize(
    ("settings", "args", "code"),
    [
        ({}, (), 0),
        ({"headline": "NO LEAK FOUND ABOVE LIMIT"}, (), 0),
        ({"headline": "INVALID"}, (), 3),
        ({"headline": "INVALID"}, ("--fail-on", "low"), 3),
        ({"headline": "INCONCLUSIVE"}, (), 3),
        ({"headline": "INCONCLUSIVE"}, ("--fail-on", "medium"), 1),
        ({"headline": "NOT TESTED"}, (), 3),
        ({"headline": "COMPARISON"}, (), 0),
        ({}, ("--fail-on", "medium"), 1),
        ({}, ("--fail-on", "high"), 0),
        ({"severity": "critical"}, ("--fail-on", "high"), 1),
        ({"fail": ["t001"]}, ("--fail-on", "medium"), 4),
        ({"fail": ["report"]}, (), 4),
    ],
)
def test_exit_codes(
    fedaudit: Command, fakes: Any, settings: dict[str, Any], args: tuple[str, ...], code: int
) -> None:
    fakes.settings.update(settings)
    assert fedaudit("run", "study.toml", *args) == code
    if "fail" not in settings:
        assert fedaudit("report", "runs/study", *args) == code


def test_a_gate_needs_to_know_what_is_deployed(
    fedaudit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = (tmp_path / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(study.replace('deployed = "dpsgd"\n', ""))
    assert fedaudit("run", "study.toml") == 0
    for command in (("run", "study.toml"), ("report", "runs/study")):
        capsys.readouterr()
        assert fedaudit(*command, "--fail-on", "low") == 2
        err = capsys.readouterr().err
        assert "compares 2 defenses" in err
        assert 'Write deployed = "dpsgd"' in err
    (tmp_path / "study.toml").write_text(study.replace('"dpsgd"\n', '"dpsdg"\n', 1))
    assert fedaudit("run", "study.toml", "--dry-run") == 2
    err = capsys.readouterr().err
    assert "study.toml: deployed: unknown defense label 'dpsdg': did you mean 'dpsgd'?" in err
    # It changes no cell: the same folder goes on under another name for what is deployed.
    (tmp_path / "study.toml").write_text(study.replace('"dpsgd"\n', '["none", "dpsgd"]\n', 1))
    assert fedaudit("run", "study.toml", "--fail-on", "high") == 0


@pytest.mark.parametrize(("reader", "words"), [("> /dev/full", "disk is full"), ("| true", "")])
def test_stdout_that_takes_nothing(reader: str, words: str) -> None:
    code = "import sys; sys.argv[1:] = ['schema', 'study']; from fedaudit.cli import main; main()"
    shell = f'{sys.executable} -c "$CODE" {reader}; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", shell],
        env={**os.environ, "CODE": code},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout in {"4\n", "0\n"} if reader == "| true" else done.stdout == "4\n"
    assert words in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr


def test_unexpected_errors_are_one_message(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any, **settings: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(session, "execute", fail)
    assert fedaudit("run", "study.toml") == 4
    err = capsys.readouterr().err
    assert "error: ZeroDivisionError: by zero\nFEDAUDIT_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("FEDAUDIT_DEBUG", "1")
    assert fedaudit("run", "study.toml") == 4
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_says_how_to_go_on(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    atomic = importlib.import_module("fedaudit.files.atomic")
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "os", SimpleNamespace(**{**vars(atomic.os), "fsync": full}))
        assert fedaudit("run", "study.toml") == 4
    assert "the disk is full" in (err := capsys.readouterr().err)
    assert err.endswith("\n  fedaudit run study.toml\n")
    assert fedaudit("run", "study.toml") == 0


def test_an_interrupt_says_how_to_go_on(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "execute", interrupt)
    assert fedaudit("run", "study.toml", "-o", "a b") == 130
    assert capsys.readouterr().err.endswith("Go on with:\n  fedaudit run study.toml -o 'a b'\n")
    monkeypatch.setattr(registry, "names", interrupt)
    assert fedaudit("list", "attacks") == 130
