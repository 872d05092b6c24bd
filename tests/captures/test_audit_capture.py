"""`fedaudit audit`: a recorded run from end to end, on real faces, with an attack that is exact."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

import fedaudit
from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.auditor_photos import originals
from fedaudit.captures.audit.auditor_steps import explained
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.captures.audit.known_defenses import estimate_defenses
from fedaudit.captures.audit.recorded_source import RecordedSource
from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.cli import cli
from fedaudit.cli.conclusion import conclude
from fedaudit.cli.options import RunOptions
from fedaudit.cli.run_study import run_study
from fedaudit.core.capture import Secret
from fedaudit.core.errors import CaptureError, ConfigError, DataError, UsageError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.measures import Estimate, Rate
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.recorded_run import Protection, RecordedRun
from fedaudit.core.scenario import Choice, Study
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.data.pseudonyms import key_of_folders, pseudonym
from fedaudit.models.build_network import build
from fedaudit.reports.build import build_report
from fedaudit.reports.comparison import Row
from fedaudit.reports.effort import effort
from fedaudit.reports.interim_analysis import reason_to_stop
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.positive_control import lacks_power, succeeds
from fedaudit.reports.recorded import findings_of
from fedaudit.reports.results import Results, Settings
from fedaudit.reports.serialization import schema
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.verdicts import judge
from fedaudit.scoring.embedder import Embedder
from fedaudit.scoring.partial_truth import match_originals
from fedaudit.study.executors.choice import Place
from fedaudit.study.manifest import read
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import open_run
from fedaudit.study.sources import names_of
from fedaudit.study.study_file import study_from_mapping, study_to_mapping
from fedaudit.study.work import Work

CLIENTS, PEOPLE, LR = 7, 26, 0.1
ATTACKS = [Choice("analytic")]


def of_run(study: Study) -> RecordedRun:
    assert study.recording is not None
    return study.recording


def recorded(study: Study) -> RecordedSource:
    return RecordedSource(study, of_run(study))


def save(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(pixels).save(path)


def people(faces: FaceSet) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, person in enumerate(faces.people):
        found.setdefault(person, []).append(index)
    return dict(list(found.items())[:PEOPLE])


def record(folder: Path, faces: FaceSet, names: Mapping[int, str], rounds: int = 1) -> Path:
    """Each client trains one step on one photo of a person of its own."""
    network = build(ModelSpec("mlp", {"classes": 40, "image_size": 32, "hidden": 64}), seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    own = list(people(faces).values())
    with fedaudit.recording(
        folder,
        model="mlp",
        arguments={"hidden": 64},
        classes=40,
        image_shape=(3, 32, 32),
        lr=LR,
        local_steps=1,
        batch_size=1,
    ) as run:
        for number in range(1, rounds + 1):
            run.broadcast(number, before)
            for client, name in names.items():
                network.load_state_dict(before)
                network.zero_grad()
                image = faces.images[own[client][number - 1]][None]
                F.cross_entropy(network(image), torch.tensor([client])).backward()  # type: ignore[no-untyped-call]
                torch.optim.SGD(network.parameters(), lr=LR).step()
                run.update(number, name, network.state_dict(), kind="weights", examples=1)
    return folder


NAMES = {k: f"client-{k}" for k in range(CLIENTS)}


@pytest.fixture(scope="module", autouse=True)
def embedded_once() -> Iterator[None]:
    """The same photos have the same embeddings: each run has a gallery of nearly the same."""
    known: dict[bytes, Tensor] = {}
    embed = Embedder.embed

    def once(embedder: Embedder, images: Tensor) -> Tensor:
        key = repr(images.shape).encode() + images.numpy().tobytes()
        if key not in known:
            known[key] = embed(embedder, images)
        return known[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "embed", once)
        yield


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> Path:
    return record(tmp_path_factory.mktemp("capture") / "c", faces, NAMES)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> dict[str, Path]:
    """Each client's folder holds two of its photos, of which one was trained on."""
    root = tmp_path_factory.mktemp("truth")
    for client, (person, photos) in zip(range(CLIENTS), people(faces).items(), strict=False):
        for photo in photos[:2]:
            save(faces.images[photo], root / f"client-{client}" / person / f"{photo}.png")
    return {f"client-{k}": root / f"client-{k}" for k in range(CLIENTS)}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> Path:
    """Five photos of everybody, that which was trained on among them."""
    root = tmp_path_factory.mktemp("gallery")
    for person, photos in people(faces).items():
        for photo in photos[:5]:
            save(faces.images[photo], root / person / f"{photo}.png")
    return root


def run(study: Study, path: Path, *, jobs: int | None = None, evidence: Any = None) -> Results:
    with open_run(path, study, evidence=evidence) as opened:
        for job in opened.todo[:jobs]:
            Work(study, opened.folder, opened.manifest.evidence)(job)
    return build_report(path, "redacted")


def requested(path: Path, **more: Any) -> Study:
    return study_of(Request(**{"path": path, "attacks": ATTACKS, "fmr": 1e-2, **more})).study


@pytest.fixture(scope="module")
def known(capture: Path, truth: dict[str, Path], gallery: Path) -> Study:
    return requested(capture, truth=truth, gallery=gallery)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, known: Study) -> tuple[Path, Results]:
    path = tmp_path_factory.mktemp("known") / "run"
    return path, run(known, path, evidence="full")


def only(results: Results) -> Row:
    (row,) = results.rows
    return row


def measured(row: Row) -> Measurement:
    assert row.measurement is not None
    return row.measurement


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


def test_a_model_that_the_user_names_is_enough(tmp_path: Path, faces: FaceSet) -> None:
    network = build(ModelSpec("mlp", {"classes": 40, "image_size": 32, "hidden": 8}))
    before = network.state_dict()
    facts: Any = {"arguments": {"classes": 40, "image_size": 32, "hidden": 8}}
    with fedaudit.recording(tmp_path / "c", **facts) as recorded:
        recorded.broadcast(1, before)
        gradient = {name: torch.randn_like(p) for name, p in network.named_parameters()}
        recorded.update(1, "c", gradient, kind="gradient", examples=1)
    with pytest.raises(UsageError, match="does not say which model"):
        requested(tmp_path / "c")
    (scenario,) = requested(tmp_path / "c", model="mlp").scenarios
    assert (scenario.network.label, scenario.deny) == ("mlp", ("defense",))


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
    assert "come back as copies, of 1 of 1 people" in row.verdict.sentence
    assert m.prior_copies is not None
    assert m.prior_copies.hits == 0
    (finding,) = (f for f in results.findings if "copies" in f.title)
    assert (finding.severity, finding.confidence) == ("high", "medium")  # nothing calibrates copies


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


def audit_jobs(study: Study) -> list[Any]:
    from fedaudit.study.jobs import expand

    return list(expand(study))


def test_identical_updates_are_one_target(tmp_path: Path, capture: Path) -> None:
    copied = Path(shutil.copytree(capture, tmp_path / "c"))
    stored = StoredCapture(copied)
    sums = next(stored.messages(1)).tensors()
    shutil.rmtree(copied / "round-000001")
    again = fedaudit.recording(copied)
    again.broadcast(1, StoredCapture(capture).broadcast(1))
    for name in ("a", "b", "c"):
        again.update(1, name, sums, kind="weights", examples=1)
    study = requested(copied)
    (target,) = of_run(study).targets_of("round-1")
    assert (target.client, target.images) == ("aggregate of 3 clients", 3)
    assert study.scenarios[0].defenses[0].label == "aggregate"
    assert [f.title for f in findings_of(study, of_run(study).seen)] == [
        "Seen in the updates: aggregate"
    ]


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


def test_what_is_missing_is_named(tmp_path: Path, faces: FaceSet) -> None:
    network = build(ModelSpec("mlp", {"classes": 40, "image_size": 32, "hidden": 8}))
    before = network.state_dict()
    with fedaudit.recording(
        tmp_path / "c", model="mlp", arguments={"hidden": 8}, classes=40, image_shape=(3, 32, 32)
    ) as recorded:
        recorded.broadcast(1, before)
        after = {n: v + 1e-3 * torch.randn_like(v) for n, v in before.items()}
        recorded.update(1, "c", after, kind="weights")
    with pytest.raises(ConfigError, match="analytic misses the shape of the batch: state examples"):
        study_of(Request(path=tmp_path / "c", attacks=ATTACKS))
    fedaudit.recording(tmp_path / "c", local_steps=1, batch_size=1)  # lr is still not known
    study = requested(tmp_path / "c", attacks=[*ATTACKS, Choice("trap_weights")])
    assert [a.name for a in study.scenarios[0].attacks] == ["analytic"]
    (left,) = of_run(study).left_out
    assert left["attack"] == "trap_weights"
    assert "chooses what it sends" in left["missing"]
    assert "training" in study.scenarios[0].deny
    assert "basic" not in study.scenarios[0].deny


def test_default_attacks_suit_the_network(tmp_path: Path, capture: Path) -> None:
    def chosen(path: Path) -> list[str]:
        study = study_of(Request(path=path)).study
        return [attack.name for attack in study.scenarios[0].attacks]

    assert chosen(capture)[0] == "analytic"  # pixels enter a fully connected layer
    network = build(ModelSpec("face_pooled", {"classes": 5, "image_size": 32}))
    facts: Any = {"model": "face_pooled", "classes": 5, "image_shape": (3, 32, 32), "lr": LR}
    with fedaudit.recording(tmp_path / "c", **facts) as recorded:
        recorded.broadcast(1, network.state_dict())
        F.cross_entropy(network(torch.rand(1, 3, 32, 32)), torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
        gradient = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        recorded.update(1, "c", gradient, kind="gradient", examples=1)
    assert "analytic" not in chosen(tmp_path / "c")
    assert "subspace_matching" in chosen(tmp_path / "c")


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


def test_few_updates_of_several_rounds_are_judged_together(tmp_path: Path, faces: FaceSet) -> None:
    path = record(tmp_path / "c", faces, {0: "a", 1: "b"}, rounds=3)
    (scenario,) = requested(path).scenarios
    assert (scenario.name, scenario.targets) == ("rounds-1-to-3", 6)
    (scenario,) = requested(path, rounds=[2]).scenarios
    assert (scenario.name, scenario.targets) == ("round-2", 2)


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


def test_faults_become_findings_and_protections_facts(tmp_path: Path, faces: FaceSet) -> None:
    path = record(tmp_path / "c", faces, {0: "a"})
    claim = DpClaim(clip=1.0, noise=0.5, sensitivity=0.5, epsilon=3.0, delta=1e-5, unit="client")
    seen = [
        Protection("sparsity", False, "e", round=1, value=0.9),
        Protection("clipping", False, "e", round=1, value=2.0),
    ]
    found = {facts.name: facts for facts in estimate_defenses(seen, 1)}
    assert found["top_k"].settings == {"pruned": 0.9}
    assert found["top_k"].estimated
    assert found["clipping"].settings == {"max_norm": 2.0}
    fedaudit.recording(path, dp=claim)
    study = requested(path)
    faults = [f for f in findings_of(study, of_run(study).seen) if f.severity != "none"]
    assert [(f.severity, "sensitivity" in f.evidence) for f in faults] == [
        ("high", True),
        ("high", False),  # and the noise that is claimed is not there at all
        ("critical", True),  # so that the claim is not met
    ]
    cell = next(j.cell for j in audit_jobs(study) if j.cell.role == "audit")
    capture = recorded(study).capture(cell)
    (stated,) = capture.claims
    assert (stated.epsilon, stated.unit, stated.rounds) == (3.0, "client", None)
    assert stated.missing == ("neighbor relation", "sampling", "number of rounds")
    assert capture.seen.defense is not None
    assert [(d.name, d.settings) for d in capture.seen.defense] == [
        ("clipping", {"max_norm": 1.0}),
        ("gaussian_noise", {"std": 0.25, "of": "entry"}),  # scaled to the sensitivity of 0.5
    ]


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


def control(results: Results, name: str) -> Any:
    return next(c for c in results.controls if c.name.startswith(name))


def test_a_step_of_the_auditors_own_is_the_positive_control(
    finished: tuple[Path, Results], faces: FaceSet
) -> None:
    path, results = finished
    found = control(results, "positive")
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


@dataclass(frozen=True)
class Blind:
    """An attack that gives back a gray image, whatever it sees."""

    needs: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.MODEL})
    reads: ClassVar[frozenset[type[Any]]] = frozenset({Update})

    def __call__(self, seen: Observation, *, generator: torch.Generator) -> Reconstruction:
        assert seen.image_shape is not None
        gray = 0.5 + 0.01 * torch.randn(1, *seen.image_shape, generator=generator)
        return Reconstruction(gray, torch.tensor([-1]))


@pytest.mark.parametrize("also", [[], ATTACKS])
def test_nothing_is_attacked_where_no_attack_rebuilds_a_known_face(
    tmp_path: Path, capture: Path, also: list[Choice], capsys: pytest.CaptureFixture[str]
) -> None:
    blind = Choice(f"{__name__}:Blind")
    study = requested(capture, clients=["client-0"], attacks=[blind, *also])
    options = RunOptions(place=Place("in-process"), quiet=True)
    code = run_study(study, tmp_path / "run", options, reason_to_stop)
    cells = [cell.stem for cell in (tmp_path / "run" / "cells").glob("*.json")]
    assert sum("--positive--" in cell for cell in cells) == 3 * (1 + len(also))
    assert any("--audit--" in cell for cell in cells) is bool(also)
    said = "stopped: no attack rebuilds a known face" in capsys.readouterr().err
    assert said is not bool(also)
    assert code == 3
    if not also:  # whoever wants it all the same goes on in that folder
        run_study(study, tmp_path / "run", options)
        assert list((tmp_path / "run" / "cells").glob("*--audit--*.json"))


@pytest.mark.slow
def test_an_attack_that_rebuilds_nothing_makes_the_run_invalid(
    tmp_path: Path, capture: Path, truth: dict[str, Path], gallery: Path
) -> None:
    blind = Choice(f"{__name__}:Blind")
    some = {name: truth[name] for name in ("client-0", "client-1")}
    study = requested(capture, truth=some, gallery=gallery, attacks=[blind])
    results = run(study, tmp_path / "run")
    assert control(results, "positive").passed is False
    assert only(results).verdict.kind == results.headline.kind == "INVALID"
    code = conclude(tmp_path / "run", "redacted", fail_on=None, jobs=1)
    assert code == 3
    # Beside one that works, the run counts, and the other's clean row says what it is worth.
    both = requested(capture, truth=some, gallery=gallery, attacks=[*ATTACKS, blind])
    results = run(both, tmp_path / "both")
    assert control(results, "positive").passed
    trials = Trials(
        tuple(
            RunFolder(tmp_path / "both").trial(cell.stem)
            for cell in (tmp_path / "both" / "cells").glob("*.json")
        )
    )
    assert succeeds(both, trials, "analytic") is True
    assert succeeds(both, trials, "Blind") is False
    assert lacks_power(both, trials, "analytic", 0.9, None) == ""
    assert "may be chance" in lacks_power(both, trials, "Blind", 0.9, None)
    otherwise = [t for t in trials.of_role("audit") if t.cell.attack == "analytic"]
    alone = effort(Group(tuple(replace(t, searched_by="spans") for t in otherwise)), Group(()))
    assert "here it searched by what layers' inputs span" in lacks_power(
        both, trials, "analytic", 0.9, alone
    )
