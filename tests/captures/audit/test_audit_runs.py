"""An audit under way: stopped, damaged, changed, hostile, silent, and by its command."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import fedaudit
from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.auditor_steps import explained
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.cli import cli
from fedaudit.core.errors import CaptureError, UsageError
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.data.face_set import FaceSet
from fedaudit.study.study_file import study_from_mapping, study_to_mapping

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded_faces import (
    ATTACKS,
    audit_jobs,
    measured,
    of_run,
    only,
    people,
    record,
    recorded,
    requested,
    run,
)


def test_a_run_that_stopped_goes_on_to_the_same(tmp_path: Path, capture: Path) -> None:
    study = requested(capture, clients=["client-0", "client-1"])
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    run(study, whole)
    run(study, halved, jobs=2)
    run(study_from_mapping(study_to_mapping(study)), halved)
    cells = sorted((whole / "cells").glob("*.safetensors"))
    assert len(cells) == 10 + 2 * 3  # the positive control's three faces, and its prior-only
    for cell in cells:
        assert (halved / "cells" / cell.name).read_bytes() == cell.read_bytes()


def test_a_damaged_client_does_not_stop_the_others(tmp_path: Path, capture: Path) -> None:
    copied = Path(shutil.copytree(capture, tmp_path / "c"))
    file = next(copied.glob("round-*/update-client-0-*"))
    file.write_bytes(file.read_bytes()[:5000])
    study = requested(copied, clients=["client-0", "client-1"])
    assert [t.client for t in of_run(study).targets_of("round-1")] == ["client-1"]
    results = run(study, tmp_path / "run")
    assert measured(only(results)).n_targets == 1
    assert any("client-0" in text and "cannot be used" in text for text in results.limitations)


def test_an_update_that_changes_under_way_is_not_attacked(tmp_path: Path, capture: Path) -> None:
    copied = Path(shutil.copytree(capture, tmp_path / "c"))
    study = requested(copied)
    first, second = of_run(study).targets_of("round-1")[:2]
    folder = copied / "round-000001"
    broadcast = {n: v + 1 for n, v in StoredCapture(copied).broadcast(1).items()}
    (folder / first.file).unlink()
    fedaudit.recording(copied).update(1, "client-0", broadcast, kind="weights", examples=1)
    (cell,) = [j.cell for j in audit_jobs(study) if j.cell.target == 0 and j.cell.role == "audit"]
    with pytest.raises(CaptureError, match="changed since"):
        recorded(study).capture(cell)
    assert recorded(study).capture(replace(cell, target=1)).seen.client == (second.client)


def test_hostile_names_stay_text(tmp_path: Path, faces: FaceSet) -> None:
    name = "</script><b>x\u202e\x1b[31m"
    path = record(tmp_path / "c", faces, {0: name, 1: "--evil/../x"})
    plan = study_of(Request(path=path, attacks=ATTACKS))
    assert study_from_mapping(study_to_mapping(plan.study)) == plan.study
    run(plan.study, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_a_wrong_image_explains_less(capture: Path, faces: FaceSet) -> None:
    study = requested(capture)
    cell = next(j.cell for j in audit_jobs(study) if j.cell.role == "audit")
    seen = recorded(study).capture(cell).seen
    first = people(faces)["s1"][0]
    right = explained(seen, Reconstruction(faces.images[[first]], torch.tensor([0])))
    wrong = explained(seen, Reconstruction(faces.images[[first + 100]], torch.tensor([0])))
    assert right is not None
    assert wrong is not None
    assert right > 0.99999
    assert wrong < 0.99


@pytest.mark.slow
def test_the_command(capture: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = ["audit", str(capture), "-o", str(output), "--attacks", "analytic"]
    command += ["--client", "client-0", "--workers", "1"]
    planned = CliRunner().invoke(cli, [*command, "--dry-run"], standalone_mode=False)
    assert planned.exception is None
    assert not output.exists()
    assert "scenario  round-1: 1 defense × 1 attack × 1 target" in planned.output
    assert "assumed, as nothing else was stated: optimizer = sgd" in planned.output
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    assert done.exception is None
    assert done.return_value == 3
    assert "NOT TESTED" in done.output
    assert (output / "report.html").exists()
    wrong = CliRunner().invoke(cli, [*command, "--truth", "x=/none"], standalone_mode=False)
    assert isinstance(wrong.exception, UsageError)


def test_the_audit_is_silent(capsys: pytest.CaptureFixture[str], capture: Path) -> None:
    study = requested(capture)
    cell = next(j.cell for j in audit_jobs(study) if j.cell.role == "audit")
    recorded(study).capture(cell)
    assert capsys.readouterr() == ("", "")
