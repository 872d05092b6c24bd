"""Many runs in a folder: listed with what they say, whatever else lies there."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sound_run import command


@pytest.fixture
def runs(sound: Path, tmp_path: Path) -> Path:
    """A folder with one run in a folder of it."""
    shutil.copytree(sound, tmp_path / "runs" / "team" / "one")
    return tmp_path / "runs"


def listed(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command("runs", "ls", folder, "--json").output)
    return found


def test_a_run_is_listed_as_its_results_state_it(runs: Path) -> None:
    (one,) = listed(runs)
    stated = json.loads((runs / "team" / "one" / "results.json").read_text())
    assert one["name"] == "team/one"
    assert one["state"] == "finished"
    assert one["verdict"] == stated["headline"]["kind"]
    assert one["severity"] == stated["headline"]["severity"]
    assert one["deployed"] == ["sign"]
    assert one["evidence"] == "full"
    files = [file for file in (runs / "team" / "one").rglob("*") if file.is_file()]
    assert one["size"] == sum(file.stat().st_size for file in files)
    table = command("runs", "ls", runs).output
    assert "team/one" in table
    assert "finished" in table


@pytest.mark.parametrize("clean", [True, False])
def test_only_a_clean_word_has_no_severity(runs: Path, clean: bool) -> None:
    """Of an open verdict none is known, and "none" beside it would look like harmless."""
    file = runs / "team" / "one" / "results.json"
    results = json.loads(file.read_text())
    kind = "NO LEAK FOUND ABOVE LIMIT" if clean else "INCONCLUSIVE"
    results["headline"] |= {"kind": kind, "severity": "none"}
    file.write_text(json.dumps(results))
    (line,) = (x for x in command("runs", "ls", runs).output.splitlines() if "team/one" in x)
    assert (" none " in line.partition(kind)[2]) == clean


def test_states(runs: Path) -> None:
    one = runs / "team" / "one"
    cell = next((one / "cells").glob("*--audit--*.json"))
    shutil.copytree(one, runs / "edited")
    (runs / "edited" / "cells" / cell.name).write_text("{}")
    shutil.copytree(one, runs / "open")
    (runs / "open" / "cells" / cell.name).unlink()
    (runs / "open" / "SHA256SUMS").unlink()
    shutil.copytree(one, runs / "broken")
    (runs / "broken" / "study.json").write_text("[]")
    (runs / "broken" / "results.json").write_text("no JSON")
    states = {run["name"]: (run["state"], run["why"]) for run in listed(runs)}
    assert states["team/one"] == ("finished", "")
    assert states["edited"] == ("altered", f"cells/{cell.name}")
    assert states["open"][0] == "unfinished"
    assert states["open"][1].startswith("1 of ")
    assert states["broken"][0] == "unreadable"
    assert command("runs", "show", one).return_value == 0
    assert command("runs", "show", runs / "edited").return_value == 3
    refused = command("runs", "show", runs / "broken")
    assert "is damaged" in str(refused.exception)


def test_what_is_no_run_is_not_listed_and_no_link_is_followed(runs: Path, tmp_path: Path) -> None:
    (runs / "notes").mkdir()
    (runs / "loop").symlink_to(runs)
    shutil.copytree(runs / "team" / "one", tmp_path / "outside")
    (runs / "outside").symlink_to(tmp_path / "outside")
    assert [run["name"] for run in listed(runs)] == ["team/one"]
    assert "no run below" in command("runs", "ls", runs / "notes").output
    assert "there is no folder" in str(command("runs", "ls", runs / "none").exception)


def test_a_hostile_name_reaches_no_terminal_raw(runs: Path) -> None:
    (runs / "team" / "one").rename(runs / "team" / "\x1b[2Jone\u202e")
    for words in (("runs", "ls", runs), ("runs", "ls", runs, "--json")):
        output = command(*words).output
        assert "\x1b" not in output
        assert "\u202e" not in output
