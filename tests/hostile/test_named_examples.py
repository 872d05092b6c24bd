"""Examples that got through once, and that no other file of this folder holds."""

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from signing import seal_record
from sound_run import STUDY, command

from fedaudit.core.errors import ConfigError
from fedaudit.study.study_file import load_study


@pytest.mark.parametrize("targets", [10**6, 2**31 - 1])
def test_a_study_of_absurd_size_is_refused_at_once(tmp_path: Path, targets: int) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace("targets = 2", f"targets = {targets}"), encoding="utf-8")
    began = time.process_time()
    with pytest.raises(ConfigError, match="one study may hold 100,000"):
        load_study(path)
    assert time.process_time() - began < 2


def test_a_hundred_scenarios_are_planned_in_seconds(tmp_path: Path) -> None:
    head, scenario = STUDY.split("[[scenario]]")
    scenarios = (scenario.replace('"fresh"', f'"s{n}"') for n in range(100))
    path = tmp_path / "study.toml"
    text = head.replace('{name = "folder", path = "faces"}', '"orl"')
    path.write_text("[[scenario]]".join([text, *scenarios]), encoding="utf-8")
    began = time.process_time()
    assert len(load_study(path).scenarios) == 100
    assert time.process_time() - began < 5


def test_cells_of_another_commit_are_told_apart(sound: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    (run / "SHA256SUMS").unlink()  # which would name the edit
    cell = next((run / "cells").glob("*--audit--*.json"))
    record = json.loads(cell.read_text())
    record["origin"] = {"fedaudit": "0.0.1", "git_commit": "f" * 40}
    seal_record(cell, record)
    command("report", run)
    limits = json.loads((run / "results.json").read_text())["limitations"]
    (told,) = (line for line in limits if "Different code computed the cells" in line)
    assert "1 by ffffffffffff" in told


def test_a_cell_of_another_study_is_refused(sound: Path, tmp_path: Path) -> None:
    """Its hashes fit, and it stands in the list of jobs."""
    run = shutil.copytree(sound, tmp_path / "run")
    (run / "SHA256SUMS").unlink()
    cell = next((run / "cells").glob("*--audit--*.json"))
    record = json.loads(cell.read_text())
    record["body"]["cell"]["batch_size"] = 7
    seal_record(cell, record)
    error = command("compare", run).exception
    assert "is none of its study" in str(error)
