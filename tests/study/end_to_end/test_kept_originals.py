"""Which photos a run folder keeps, and who may read it."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fedaudit.captures.simulate.study_faces import faces_of
from fedaudit.reports.build import build_report
from fedaudit.reports.results import Results

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_study import CELLS, STUDY


def _originals() -> Tensor:
    return faces_of(STUDY).images


def _shows_an_original(tensor: Tensor) -> bool:
    originals = _originals()
    if tensor.shape[1:] != originals.shape[1:]:
        return False
    distance = torch.cdist(tensor.flatten(1), originals.flatten(1))
    return bool((distance < 0.1).any())


def _kept(path: Path) -> list[Tensor]:
    files = sorted(path.rglob("*.safetensors"))
    return [tensor for file in files for tensor in load_file(file).values() if tensor.dim() == 4]


def test_redacted_keeps_no_original(redacted: Path, results: Results) -> None:
    assert not (redacted / "evidence").exists()
    assert len(_kept(redacted)) >= len(CELLS)
    assert not any(_shows_an_original(tensor) for tensor in _kept(redacted))
    assert "data:image" not in (redacted / "report.html").read_text()


@pytest.mark.slow
def test_full_keeps_and_shows_originals(full: Path) -> None:
    build_report(full, "full")
    assert sorted(f.name for f in (full / "evidence").iterdir()) == [
        "fresh--t000.safetensors",
        "fresh--t001.safetensors",
        "trained--t000.safetensors",
    ]
    assert all(_shows_an_original(tensor) for tensor in _kept(full / "evidence"))
    assert "data:image" in (full / "report.html").read_text()
    build_report(full, "redacted")
    assert "data:image" not in (full / "report.html").read_text()


@pytest.mark.slow
def test_a_run_folder_is_private(redacted: Path, full: Path) -> None:
    for path in (redacted, full):
        for inside in (path, *path.rglob("*")):
            assert inside.stat().st_mode & 0o077 == 0, inside
