"""`fedaudit audit`: a recorded run from end to end, on real faces, with an attack that is exact."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fedaudit.cli import cli
from fedaudit.core.scenario import Study
from fedaudit.data.face_set import FaceSet
from fedaudit.reports.build import build_report
from fedaudit.reports.results import Results
from fedaudit.reports.serialization import schema
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.sources import names_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded_faces import CLIENTS, control_of, measured, only, people


def test_originals_and_gallery_demonstrate_the_leak(finished: tuple[Path, Results]) -> None:
    path, results = finished
    row = only(results)
    m = measured(row)
    assert m.reid is not None
    assert m.ssim is not None
    assert m.excess is not None
    assert m.reid.n == m.n_people == CLIENTS
    assert m.reid.hits >= 6
    assert m.excess.low > 0
    assert m.prior is not None
    assert m.prior.hits == 0
    assert m.ssim.low > 0.99  # paired with the photo that was trained on, of two
    assert results.headline.kind == "LEAK DEMONSTRATED"
    assert "recorded" in results.headline.sentence
    assert "fresh" not in results.headline.sentence
    assert m.labels is None  # nobody knows which class a person is
    assert (row.method, row.defense, row.adaptive) == ("recorded", "as-recorded", "estimated")
    assert m.explained is not None
    assert m.explained.update.low > 0.999
    for control in (m.explained.other, m.explained.prior, m.explained.noise):
        assert control is not None
        assert control.high < 0.9
    assert not any("simulated" in text for text in results.limitations)
    assert all(c.passed is not False for c in results.controls)
    assert (path / "evidence").is_dir()  # full evidence was asked for


def test_each_picture_stands_beside_the_photo_that_it_is_of(
    finished: tuple[Path, Results],
) -> None:
    """A client has more photos than were rebuilt; the report shows the right one."""
    path, results = finished
    folder = RunFolder(path)
    for key in {exhibit.cell for exhibit in results.exhibits}:
        drawn, trial = folder.tensors(key), folder.trial(key)
        kept = folder.evidence(trial.cell.scenario, trial.cell.target)
        assert kept is not None
        assert len(kept["images"]) == 2
        original = kept["images"][int(drawn["originals"][0])]
        assert float((original - drawn["images"][0]).abs().max()) < 0.02
    build_report(path, "full")
    assert (path / "report.html").read_text().count("<img") > 2 * CLIENTS
    build_report(path, "redacted")


def test_the_trained_photo_is_no_reference(
    finished: tuple[Path, Results], faces: FaceSet, known: Study
) -> None:
    """Of five photos one was trained on and one is beside it: three are free, two references."""
    path, _ = finished
    kept = RunFolder(path).shared_tensors("gallery")
    assert kept is not None
    pseudonyms = {name: one for one, name in names_of(known).items()}
    names = [pseudonyms[name] for name in people(faces)]
    assert len(kept[f"reference/{names[0]}"]) == 2
    assert len(kept[f"probe/{names[0]}"]) == 3
    assert len(kept[f"reference/{names[-1]}"]) == 3  # nobody's original


def test_the_report_outlives_the_capture(
    finished: tuple[Path, Results], capture: Path, tmp_path: Path
) -> None:
    path, _ = finished
    copied = Path(shutil.copytree(path, tmp_path / "run"))
    pages = [(copied / name).read_bytes() for name in ("results.json", "report.html")]
    hidden = capture.rename(capture.with_name("hidden"))
    try:
        again = CliRunner().invoke(cli, ["report", str(copied)], standalone_mode=False)
    finally:
        hidden.rename(capture)
    assert again.exception is None
    assert [(copied / name).read_bytes() for name in ("results.json", "report.html")] == pages
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(json.loads(pages[0]), schema())


def test_a_step_of_the_auditors_own_is_the_positive_control(
    finished: tuple[Path, Results], faces: FaceSet
) -> None:
    path, results = finished
    found = control_of(results, "positive")
    assert found.passed
    assert "on photos of the gallery: analytic SSIM 1.00" in found.outcome
    folder = RunFolder(path)
    cells = sorted(folder.path.glob("cells/*--positive--*.json"))
    assert len(cells) == 3
    trials = [folder.trial(cell.stem) for cell in cells]
    assert all(image.metrics["ssim"] > 0.99 for trial in trials for image in trial.images)
    # It is no row, no exhibit, and no face of it is kept among the clients' originals.
    assert not any("positive" in exhibit.cell for exhibit in results.exhibits)
    assert measured(only(results)).n_targets == CLIENTS
    kept = [folder.evidence("round-1", client) or {} for client in range(CLIENTS)]
    photos = people(faces)
    for client, person in zip(range(CLIENTS), photos, strict=False):
        expected = faces.images[photos[person][:2]]
        assert torch.allclose(kept[client]["images"], expected, atol=0.01)
