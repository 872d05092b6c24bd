"""What the command line says of itself: help, usage errors, plugins, schemas."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from fedaudit.cli import COMMANDS, cli, options
from fedaudit.cli.ending import end
from fedaudit.core import measures, registry
from fedaudit.reports import comparison

Command = Callable[..., int]


def test_help_is_quick_and_complete() -> None:
    before = os.times()
    code = "import sys; sys.argv[1:] = ['--help']; from fedaudit.cli import main\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = os.times()  # CPU seconds of the child: half a second, however busy the computer is
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1.5
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize("name", ["run", "report", "list", "explain", "schema", "demo"])
def test_every_help_has_examples(
    fedaudit: Command, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert fedaudit(name, "--help") == 0
    out = capsys.readouterr().out
    assert f"Examples:\n    fedaudit {name}" in out


def test_usage_errors_name_the_closest_match(
    fedaudit: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, words in {
        ("rnu",): "error: unknown command 'rnu': did you mean 'run'?",
        ("qqq",): "choose from demo, run",
        ("run", "study.toml", "--outputt", "x"): "--output",
        ("run",): "Missing argument 'STUDY'",
        ("run", "study.toml", "--workers", "0"): "0 is not in the range",
        ("run", "none.toml"): "error: there is no study file 'none.toml'",
        ("explain", "quik"): "unknown plugin 'quik'",
        ("report", "study.toml"): "is not a run folder",
        ("list", "attack"): "unknown kind 'attack': did you mean 'attacks'?",
        ("explain", "attacks"): "Write: fedaudit list attacks",
        ("--nonsense",): "No such option",
    }.items():
        expected = 4 if args[0] == "report" else 2
        assert fedaudit(*args) == expected, args
        captured = capsys.readouterr()
        assert words in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""
    assert fedaudit() == 2
    assert "Commands:" in capsys.readouterr().err
    assert fedaudit("--version") == 0
    assert re.fullmatch(r"fedaudit \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_words_of_the_options() -> None:
    assert get_args(measures.Evidence) == options.EVIDENCE
    assert get_args(comparison.Severity) == (*options.GATES, "none")


def test_listing(fedaudit: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedaudit("list", "threat-models") == 0
    assert "D  Data-enhanced" in capsys.readouterr().out
    assert fedaudit("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"kind", "name", "summary"} == set(rows[0])
    assert {row["kind"] for row in rows} >= {"attacks", "defenses", "networks", "threat-models"}
    assert fedaudit("list") == 0
    out = capsys.readouterr().out
    assert "\nthreat-models\n  A " in out
    assert "\nmetrics  (for plugins; not set in a study)\n" in out


def test_listing_survives_a_broken_plugin(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(kind: str, name: str) -> Any:
        raise ImportError("no module 'x'")

    monkeypatch.setattr(registry, "lookup", broken)
    assert fedaudit("list", "attacks") == 0
    assert "(cannot be loaded: no module 'x')" in capsys.readouterr().out
    assert fedaudit("explain", "gan_inversion") == 4
    assert "cannot be imported" in capsys.readouterr().err


def test_explain(
    fedaudit: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "names", lambda kind: ("quick",) if kind == "attacks" else ())
    assert fedaudit("explain", "quick") == 0
    out = capsys.readouterr().out
    assert out.startswith("quick (attack)\n\nGuesses.")
    assert "\n  steps: int = 1\n" in out
    assert "Needs to know:\n  model: architecture" in out
    assert fedaudit("explain", "quick", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["settings"][0] == {"name": "steps", "type": "int", "default": "1"}
    assert fedaudit("explain", "D") == 0
    assert "Grants: auxiliary, basic" in capsys.readouterr().out


def test_explain_what_is_not_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the current folder, as studies and imports look there."""
    monkeypatch.setattr("sys.path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_plain_attack.py").write_text(
        'class MeanFace:\n    """The mean."""\n\n    def __init__(self, faces: int = 3): ...\n'
    )
    assert end(cli, ("explain", "a_plain_attack:MeanFace")) == 0
    out = capsys.readouterr().out
    assert out.startswith("a_plain_attack:MeanFace (not registered)\n\nThe mean.")
    assert "\n  faces: int = 3\n" in out
    for wrong in ("a_plain_attack:Mean", ":MeanFace", "a_plain_attack:"):
        assert end(cli, ("explain", wrong)) == 2
        assert f"cannot import {wrong!r}" in capsys.readouterr().err


def test_schemas(fedaudit: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert fedaudit("schema", "study") == 0
    assert "scenario" in json.loads(capsys.readouterr().out)["properties"]
    assert fedaudit("schema", "results") == 0
    assert "headline" in json.loads(capsys.readouterr().out)["properties"]
