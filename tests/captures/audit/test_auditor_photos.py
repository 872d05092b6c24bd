"""What an audit says by the photos that the auditor has: originals, a gallery, both or none."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.auditor_photos import originals
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.core.capture import Secret
from fedaudit.core.errors import ConfigError, DataError, UsageError
from fedaudit.core.measures import Estimate, Rate
from fedaudit.data.face_set import FaceSet
from fedaudit.data.pseudonyms import key_of_folders, pseudonym
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.results import Settings
from fedaudit.reports.verdicts import judge
from fedaudit.scoring.partial_truth import match_originals
from fedaudit.study.manifest import read
from fedaudit.study.sources import names_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded_faces import ATTACKS, measured, of_run, only, people, requested, run, save


@pytest.mark.slow
def test_people_who_are_not_in_the_gallery_do_not_hide_the_others(
    tmp_path: Path, capture: Path, truth: dict[str, Path], gallery: Path
) -> None:
    some = Path(shutil.copytree(gallery, tmp_path / "gallery"))
    gone = next(iter((truth["client-0"]).iterdir())).name
    shutil.rmtree(some / gone)
    two = {name: truth[name] for name in ("client-0", "client-1")}
    plan = study_of(Request(path=capture, attacks=ATTACKS, fmr=1e-2, truth=two, gallery=some))
    gone = pseudonym(gone, key_of_folders(str(some)))
    assert f"not in the gallery, hence not identified: {gone}" in plan.notes
    results = run(plan.study, tmp_path / "run")
    row = only(results)
    m = measured(row)
    assert m.reid is not None
    assert (m.reid.n, m.n_targets) == (1, 1)
    assert any(f"in no row: {gone}" in text for text in results.limitations)


@pytest.mark.slow
def test_a_gallery_alone_tells_matches_with_somebody(
    tmp_path: Path, capture: Path, gallery: Path, faces: FaceSet
) -> None:
    study = requested(capture, gallery=gallery, clients=["client-0", "client-1"])
    results = run(study, tmp_path / "run")
    row = only(results)
    m = measured(row)
    assert m.searched
    assert m.ssim is None
    assert not m.metrics
    assert m.reid is not None
    assert (m.reid.hits, m.reid.n) == (2, 2)
    assert m.chance is not None
    assert m.chance.n > 50
    # Two matches of two cannot be told from luck, and that they are the right people is not known.
    assert results.headline.kind == "INCONCLUSIVE"
    assert "match somebody in the gallery" in results.headline.sentence
    assert "not known" in results.headline.sentence
    assert "re-identified" not in results.headline.sentence
    page = (tmp_path / "run" / "report.html").read_text()
    assert "match somebody in the gallery" in page
    assert "— ↓" in page
    pseudonyms = {name: one for one, name in names_of(read(tmp_path / "run").study).items()}
    assert {e.person for e in results.exhibits} == {
        f"client-{k} (nearest: {pseudonyms[person]})"
        for k, person in enumerate(list(people(faces))[:2])
    }


def test_without_people_the_report_tells_the_objective_alone(tmp_path: Path, capture: Path) -> None:
    results = run(requested(capture, clients=["client-0", "client-1"]), tmp_path / "run")
    row = only(results)
    m = measured(row)
    assert m.reid is None
    assert m.ssim is None
    assert results.headline.kind == row.verdict.kind == "NOT TESTED"
    assert "explains its update 1.00" in results.headline.sentence
    assert "cannot be said" in results.headline.sentence
    assert m.explained is not None
    assert m.explained.other is not None
    assert m.explained.update.low > m.explained.other.high
    assert not any(f.title.startswith("Faces can be rebuilt") for f in results.findings)


def test_originals_without_a_gallery_are_measured(
    tmp_path: Path, capture: Path, truth: dict[str, Path]
) -> None:
    study = requested(capture, truth={"": truth["client-0"]}, clients=["client-0"])
    results = run(study, tmp_path / "run")
    row = only(results)
    m = measured(row)
    assert m.reid is None
    assert m.ssim is not None
    assert m.ssim.value > 0.99
    assert row.verdict.kind == "NOT TESTED"
    assert "Identity was not tested" in row.verdict.sentence
    assert not (tmp_path / "run" / "evidence").exists()  # originals are never kept unasked
    # One photo is no statistics of people, and a copy of it needs none.
    assert "come back as what passes for copies, of 1 of 1 person" in row.verdict.sentence
    assert m.prior_copies is not None
    assert m.prior_copies.hits == 0
    (finding,) = (f for f in results.findings if "copies" in f.title)
    assert (finding.severity, finding.confidence) == ("high", "medium")  # nothing calibrates copies


def test_whose_photos_must_be_clear(capture: Path, truth: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whose photos"):
        requested(capture, truth={"": truth["client-0"]})
    with pytest.raises(ConfigError, match="no such client"):
        requested(capture, truth={"nobody": truth["client-0"]})
    with pytest.raises(ConfigError, match="no round 9"):
        requested(capture, rounds=[9])
    with pytest.raises(DataError, match="no folder"):
        requested(capture, truth={"client-0": tmp_path / "none"})
    with pytest.raises(UsageError, match="none of its updates"):
        requested(capture, clients=[])


def test_photos_lie_flat_by_person_or_by_round(tmp_path: Path, faces: FaceSet) -> None:
    save(faces.images[0], tmp_path / "flat" / "a.png")
    assert originals(tmp_path / "flat", 3).people == ("",)
    save(faces.images[0], tmp_path / "rounds" / "round-3" / "anna" / "a.png")
    assert originals(tmp_path / "rounds", 3).people == ("anna",)
    assert originals(tmp_path / "rounds", 2).files == ()


def test_known_and_unknown_clients_do_not_share_a_line(
    capture: Path, truth: dict[str, Path]
) -> None:
    study = requested(
        capture, truth={"client-0": truth["client-0"]}, clients=["client-0", "client-1"]
    )
    assert [s.name for s in study.scenarios] == ["round-1-canary", "round-1"]
    assert [bool(t.truth) for t in of_run(study).targets] == [True, False]


def test_pairing_takes_the_least_squared_error() -> None:
    generator = torch.Generator().manual_seed(0)
    photos = torch.rand(5, 3, 8, 8, generator=generator)
    secret = Secret(photos, torch.full((5,), -1), tuple("abcde"), tuple("abcde"))
    rebuilt = photos[[3, 1]] + 0.01
    chosen, indices = match_originals(secret, rebuilt)
    assert chosen.people == ("d", "b")
    assert indices.tolist() == [3, 1]


def test_a_search_demonstrates_only_what_chance_does_not_explain() -> None:
    settings = Settings(0.05, 0.95, 1e-3, 0)
    reid, excess = Rate(9, 10, 0.9, 0.55, 1.0), Estimate(0.9, 0.4, 1.0, 10, "")
    rare, common = Rate(1, 100, 0.01, 0.0, 0.05), Rate(60, 100, 0.6, 0.5, 0.7)
    rarely = Measurement(10, 10, "photos", (), {}, 1.0, reid=reid, excess=excess, chance=rare)
    rarely = replace(rarely, searched=True)
    found = judge(rarely, settings, passive=True, valid=True)
    assert found.kind == "LEAK DEMONSTRATED"
    assert "not known" in found.sentence
    by_chance = judge(replace(rarely, chance=common), settings, passive=True, valid=True)
    assert by_chance.kind == "INCONCLUSIVE"
