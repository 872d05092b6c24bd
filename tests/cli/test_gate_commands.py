"""`fedaudit gate`, `accept`, `diff` and `export`, as a build job calls them."""

import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedaudit.cli import cli
from fedaudit.reports import build

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from sample import sample


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two runs, `now` and `last`; `last` lacks the gravest finding."""
    known = {"now": sample(), "last": replace(sample(), findings=sample().findings[1:])}
    monkeypatch.setattr(build, "results_of", lambda path: known[path.name])
    monkeypatch.chdir(tmp_path)


def _fedaudit(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


def test_a_new_finding_fails_the_gate_until_it_is_accepted() -> None:
    asked = ("gate", "now", "--fail-on", "new-critical", "--baseline", "last")
    failed = _fedaudit(*asked)
    assert failed.return_value == 1
    fingerprint = sample().findings[0].fingerprint
    assert fingerprint in failed.output
    taken = _fedaudit(
        "accept", fingerprint, "--reason", "invented", "--owner", "Lee", "--expires", "2999-01-01"
    )
    assert taken.return_value == 0
    passed = _fedaudit(*asked)
    assert (passed.return_value, "gate: passed" in passed.output) == (0, True)
    assert "accepted: F-001 critical" in passed.output
    assert _fedaudit("gate", "last", "--fail-on", "critical").return_value == 0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (
            ("accept", "x", "--reason", "a", "--owner", "b", "--expires", "2999-01-01"),
            "16 digi",
        ),
        (("accept", "0" * 16, "--reason", "a", "--owner", "b", "--expires", "2020-01-01"), "past"),
        (("accept", "0" * 16, "--reason", " ", "--owner", "b", "--expires", "2999-01-01"), "say"),
        (("gate", "now"), "needs a bar"),
        (("gate", "now", "--fail-on", "new-low"), "--baseline"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], what: str) -> None:
    refused = _fedaudit(*arguments)
    assert what in str(refused.exception)
    assert not Path("fedaudit-accepted.toml").exists()


def test_differences_are_printed_and_can_be_read_by_programs() -> None:
    shown = _fedaudit("diff", "last", "now")
    assert "new: critical" in shown.output
    assert "no difference shown" in shown.output
    content = json.loads(_fedaudit("diff", "last", "now", "--format", "json").output)
    assert len(content["new"]) == 1
    table = _fedaudit("diff", "last", "now", "--format", "markdown").output
    assert table.startswith("| scenario |")


@pytest.mark.parametrize("form", ["sarif", "junit", "markdown", "csv", "json"])
def test_every_format_goes_to_the_terminal_and_into_a_file(form: str, tmp_path: Path) -> None:
    printed = _fedaudit("export", "now", "--format", form).output
    file = tmp_path / "out"
    assert _fedaudit("export", "now", "--format", form, "--output", str(file)).return_value == 0
    assert file.read_text().rstrip("\n") == printed.rstrip("\n")
    assert len(printed) > 500


def test_every_command_of_the_example_workflow_can_be_given() -> None:
    workflow = (Path(__file__).parents[2] / "examples" / "gate.yml").read_text()
    install, run, *rest = re.findall(r"^ +- run: (.+)$", workflow, re.MULTILINE)
    assert install == "pip install fedaudit"
    command, _, taken = run.partition(" || ")
    assert taken == "test $? -eq 3", "an open verdict must not hide what was found"
    Path("study.toml").write_text(TINY)
    assert _fedaudit(*shlex.split(command)[1:], "--dry-run").return_value == 0
    commands = [shlex.split(step.partition(" >> ")[0])[1:] for step in rest]
    assert [one[0] for one in commands] == ["export", "export", "gate"]
    assert [_fedaudit(*one).return_value for one in commands] == [0, 0, 1]
    assert json.loads(Path("fedaudit.sarif").read_text())["version"] == "2.1.0"


TINY = """
name = "tiny"
deployed = "dpsgd"
[federation]
clients = 3
[[scenario]]
name = "fresh"
network = "mlp"
targets = 2
attacks = ["analytic"]
defenses = ["none", "dpsgd"]
"""
