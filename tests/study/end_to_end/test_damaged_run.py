"""Reports of a run folder from which something is missing or was altered."""

import shutil
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from fedaudit.reports.build import build_report
from fedaudit.reports.results import Results
from fedaudit.scoring.embedder import load_embedder
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.sources import source_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_study import CELLS, STUDY, first_cell


def test_a_damaged_cell_is_not_tested(copied: Path) -> None:
    folder = RunFolder(copied)
    hurt = first_cell("fresh")
    file = folder.files("cells", hurt.key)[1]
    file.write_bytes(file.read_bytes()[:-1])
    found = build_report(copied, "full")
    (row, *_) = found.rows
    assert row.measurement
    assert row.measurement.n_targets == 1
    told = [text for text in found.limitations if text.startswith("Not tested")]
    assert len(told) == 1
    assert hurt.key in told[0]
    assert all(exhibit.cell != hurt.key for exhibit in found.exhibits)


def test_cells_that_are_missing_are_counted(copied: Path) -> None:
    folder = RunFolder(copied)
    for cell in CELLS:
        if cell.scenario == "trained":
            folder.files("cells", cell.key)[0].unlink()
    found = build_report(copied, "redacted")
    assert {row.scenario for row in found.rows} == {"fresh"}
    assert any(text.startswith("5 job(s) of the study were not run") for text in found.limitations)


def test_a_report_of_nothing_says_not_tested(copied: Path) -> None:
    shutil.rmtree(copied / "cells")
    found = build_report(copied, "redacted")
    assert found.rows == ()
    assert found.headline.kind == "NOT TESTED"
    assert {c.result for c in found.coverage} == {"—"}


def test_without_a_gallery_identity_is_unknown(copied: Path) -> None:
    """Nothing is claimed about a threshold that cannot be read again."""
    (copied / "gallery.safetensors").unlink()
    found = build_report(copied, "redacted")
    assert found.ceilings == ()
    assert found.controls[0].passed is None


@pytest.mark.slow
def test_an_altered_embedder_makes_the_run_invalid(copied: Path, results: Results) -> None:
    def ceiling(found: Results) -> bool | None:
        return next(c.passed for c in found.controls if c.name.startswith("identity ceiling"))

    assert ceiling(results)
    folder, altered = RunFolder(copied), deepcopy(load_embedder())
    draw = torch.Generator().manual_seed(0)
    for weights in altered.network.parameters():
        shuffled = weights.flatten()[torch.randperm(weights.numel(), generator=draw)]
        weights.copy_(shuffled.view_as(weights))
    gallery = source_of(STUDY, folder).gallery(STUDY.federation, altered)
    assert gallery
    folder.save_shared_tensors("gallery", gallery)
    found = build_report(copied, "redacted")
    assert ceiling(found) is False
    assert found.headline.kind == "INVALID"
    assert "identity ceiling" in found.headline.sentence
    assert {row.verdict.kind for row in found.rows} == {"INVALID"}
