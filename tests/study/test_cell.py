"""A tiny study from end to end: real faces, all roles, a fresh and a trained model."""

import json
import shutil
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fedaudit.captures.simulate.study_faces import faces_of
from fedaudit.core.errors import KnowledgeError
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.trial import Cell
from fedaudit.data.provenance import PACKAGES
from fedaudit.reports.build import build_report
from fedaudit.reports.exhibits import OF_FEW
from fedaudit.reports.results import Results
from fedaudit.reports.serialization import schema
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.score import score
from fedaudit.study import demo_study, judge, run_cell
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.jobs import AttackJob, TrainJob, expand
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import failures, open_run, run
from fedaudit.study.sources import source_of
from fedaudit.study.study_check import check_study

ATTACKS = (
    Choice("inverting_gradients", {"steps": 3}),
    Choice(
        "gan_inversion",
        {"candidates": 4, "latent_steps": 1, "stage_steps": 1, "pixel_steps": 2},
    ),
)
STUDY = Study(
    name="tiny",
    scenarios=(
        Scenario("fresh", targets=2, defenses=(Choice("none"), Choice("dplc")), attacks=ATTACKS),
        Scenario("trained", round=2, targets=1, attacks=ATTACKS[:1]),
    ),
    size=32,
    federation=Federation(clients=3, rounds=1),
    utility=False,
)
CELLS = tuple(job.cell for job in expand(STUDY) if isinstance(job, AttackJob))


def _run(path: Path, *, workers: int, evidence: Any) -> Path:
    with open_run(path, STUDY, command="fedaudit run tiny.toml", evidence=evidence) as opened:
        assert failures(opened, run(opened, executor=LocalProcesses(workers))) == {}
    return path


@pytest.fixture(scope="module")
def redacted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one worker, without the originals."""
    return _run(tmp_path_factory.mktemp("one") / "run", workers=1, evidence="redacted")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By two workers, with the originals."""
    return _run(tmp_path_factory.mktemp("two") / "run", workers=2, evidence="full")


@pytest.fixture(scope="module")
def results(redacted: Path) -> Results:
    return build_report(redacted, "redacted")


@pytest.fixture
def copied(redacted: Path, tmp_path: Path) -> Path:
    """A run folder to damage."""
    return Path(shutil.copytree(redacted, tmp_path / "copy"))


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


def test_a_study_has_every_role() -> None:
    roles = [(c.scenario, c.role) for c in CELLS]
    assert Counter(role for scenario, role in roles if scenario == "fresh") == {
        "audit": 8,
        "half_steps": 8,
        "prior_only": 8,
        "update_noise": 4,
        "noise": 2,
    }
    trained = ["audit", "half_steps", "prior_only", "update_noise", "noise"]
    assert [r for s, r in roles if s == "trained"] == trained


@pytest.mark.slow
def test_workers_do_not_change_results(redacted: Path, full: Path) -> None:
    one, two = RunFolder(redacted), RunFolder(full)
    for cell in CELLS:
        first, second = (
            json.loads(folder.files("cells", cell.key)[0].read_bytes()) for folder in (one, two)
        )
        assert first["body"].pop("seconds") >= 0
        assert second["body"].pop("seconds") >= 0
        del first["record"], second["record"]  # the hash of all, seconds included
        assert first == second  # with the hash of the tensors
        assert torch.equal(one.tensors(cell.key)["images"], two.tensors(cell.key)["images"])
    for model in (redacted / "models").glob("*.safetensors"):
        assert model.read_bytes() == (full / "models" / model.name).read_bytes()


@pytest.mark.slow
def test_results_differ_in_one_part_alone(redacted: Path, full: Path) -> None:
    build_report(full, "redacted")
    build_report(redacted, "redacted")
    one, two = (json.loads((run / "results.json").read_bytes()) for run in (redacted, full))
    times = one.pop("this_run")
    assert times.keys() == two.pop("this_run").keys()
    assert "/rows/0/measurement/seconds" in times
    assert one == two


def test_who_is_not_told_of_a_defense_and_reads_nothing_is_blind(redacted: Path) -> None:
    words = {}
    for defense in ("none", "ats", "sign"):
        asked = Scenario(
            "denied",
            deny=("defense",),
            defenses=(Choice(defense),),
            attacks=(Choice("inverting_gradients", {"steps": 1, "polish": 0}),),
        )
        cell = replace(CELLS[0], scenario="denied", defense=defense, attack="inverting_gradients")
        study = replace(STUDY, scenarios=(asked,))
        capture = source_of(study, RunFolder(redacted)).capture(cell)
        assert capture.seen.defense is None
        words[defense] = run_cell.reconstruct(
            asked, cell, capture, run_cell.attack_of(asked, cell)
        ).adaptive
    assert words == {"none": "estimated", "ats": "no", "sign": "estimated"}


@pytest.mark.parametrize("role", ["audit", "prior_only", "update_noise", "noise"])
@pytest.mark.parametrize("scenario", ["fresh", "trained"])
def test_every_role_goes_through_one_scorer(redacted: Path, scenario: str, role: str) -> None:
    """Done again by hand, in this process: same images, same scores."""
    folder = RunFolder(redacted)
    cell = next(c for c in CELLS if (c.scenario, c.role) == (scenario, role))
    asked = next(s for s in STUDY.scenarios if s.name == scenario)
    source = source_of(STUDY, folder)
    capture = source.capture(cell)
    secret = capture.secret
    assert secret is not None
    made = run_cell.reconstruct(asked, cell, capture, run_cell.attack_of(asked, cell))
    gallery, embed = judge.judge_of(STUDY, folder, STUDY.scenarios[0])
    wrong = source.wrong_person(cell, secret, made)
    assert wrong not in secret.people
    beside = judge.judges_beside(STUDY, folder, STUDY.scenarios[0])
    images, labels, tensors = score(
        secret,
        made,
        gallery=gallery,
        embed=embed,
        wrong_person=wrong,
        beside=beside,
        originals=embed if role == "audit" else None,
    )
    assert (images[0].original is None) == (role != "audit")
    assert set(images[0].others) == {"dlib"}
    trial = folder.trial(cell.key)
    assert trial.images == images
    assert trial.labels_correct == labels
    assert torch.equal(folder.tensors(cell.key)["images"], tensors)
    assert trial.lineup
    assert set(trial.lineup.people) == set(secret.eligible)
    (row,) = trial.lineup.cosines  # one image: what stands for its person is that image
    assert row[trial.lineup.people.index(secret.people[0])] == pytest.approx(
        images[0].cosine, abs=1e-6
    )
    for image in images:
        measured = (image.metrics["lpips"], image.cosine, image.reidentified, image.rank)
        assert None not in (*measured, image.wrong_reidentified)


def test_the_controls_have_nothing_of_the_client(redacted: Path) -> None:
    """Prior-only: another person's update; noise: no attack at all, and no label guessed."""
    folder = RunFolder(redacted)
    for cell in CELLS:
        trial = folder.trial(cell.key)
        if cell.role == "noise":
            assert (trial.iterations, trial.gradient_evaluations) == (0, 0)
            assert trial.labels_correct is None
        elif cell.role == "prior_only":
            assert trial.control == "the update of invented people"
            audited = folder.trial(replace(cell, role="audit").key)
            assert trial.iterations == audited.iterations > 0
            assert trial.gradient_evaluations > 0
            images = [folder.tensors(t.cell.key)["images"] for t in (trial, audited)]
            assert not torch.equal(*images)


def test_half_of_the_steps_shows_whether_the_search_had_converged(
    redacted: Path, results: Results
) -> None:
    folder = RunFolder(redacted)
    for cell in (c for c in CELLS if c.role == "half_steps"):
        half = folder.trial(cell.key)
        whole = folder.trial(replace(cell, role="audit").key)
        assert 0 < half.iterations < whole.iterations
        assert half.objective > 0
    efforts = [row.measurement.effort for row in results.rows if row.measurement]
    assert [effort.tested for effort in efforts if effort] == [2, 2, 2, 2, 1]
    # A handful of steps is not enough for anybody.
    assert not any(effort.enough for effort in efforts if effort)


def test_a_later_round_attacks_a_trained_model(redacted: Path) -> None:
    folder = RunFolder(redacted)
    fresh, trained = (
        source_of(STUDY, folder).capture(_first(s.name)).seen for s in STUDY.scenarios
    )
    assert (fresh.round, trained.round) == (1, 2)
    assert fresh.before.keys() == trained.before.keys()
    assert any(not torch.equal(fresh.before[k], trained.before[k]) for k in fresh.before)


def _first(scenario: str) -> Cell:
    return next(c for c in CELLS if c.scenario == scenario)


@pytest.mark.slow
def test_reports_are_reproducible(full: Path, redacted: Path, results: Results) -> None:
    for path, evidence in ((full, "full"), (redacted, "redacted")):
        twice = []
        for _ in range(2):
            build_report(path, evidence)  # type: ignore[arg-type]
            twice.append([(path / n).read_bytes() for n in ("results.json", "report.html")])
        assert twice[0] == twice[1]


def test_results_follow_their_schema(redacted: Path, results: Results) -> None:
    data = json.loads((redacted / "results.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(data, schema(), cls=jsonschema.Draft202012Validator)
    assert data["study"] == "tiny"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "rows": [{}]}, schema())


def test_what_the_report_says(results: Results) -> None:
    assert [
        (r.scenario, r.defense, r.attack, r.measurement and r.measurement.n_targets)
        for r in results.rows
    ] == [
        ("fresh", "none", "inverting_gradients", 2),
        ("fresh", "none", "gan_inversion", 2),
        ("fresh", "dplc", "inverting_gradients", 2),
        ("fresh", "dplc", "gan_inversion", 2),
        ("trained", "none", "inverting_gradients", 1),
    ]
    assert all(r.reid and r.utility is None for r in results.rows)
    assert all(r.measurement and r.measurement.prior and r.measurement.excess for r in results.rows)
    assert [(e.image_size, e.gallery_people) for e in results.ceilings] == [(32, 40)]
    names = [c.name.partition(" ")[0] for c in results.controls]
    assert names == [
        "FMR",
        "copies",
        "identity",
        "positive",
        "noise",
        "wrong",
        *["prior-only"] * 3,
        "noise",
        "noise",
    ]
    assert {p.role for p in results.points} == {"audit", "prior_only", "noise"}
    assert len(results.points) == sum(cell.role not in OF_FEW for cell in CELLS)
    assert [ledger.scenario for ledger in results.ledger] == ["fresh", "trained"]
    assert "fresh global model" in results.ledger[0].model_state
    assert "round 2, after 1 rounds of 3 clients" in results.ledger[1].model_state
    assert not any("not run" in text or "damaged" in text for text in results.limitations)


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


def test_a_damaged_cell_is_not_tested(copied: Path) -> None:
    folder = RunFolder(copied)
    hurt = _first("fresh")
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


def test_facts(redacted: Path, results: Results) -> None:
    facts = json.loads((redacted / "facts.json").read_bytes())
    faces = faces_of(STUDY)
    assert set(facts["versions"]) == set(PACKAGES)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["terms"] == faces.terms
    assert facts["public"] is True
    assert facts["cpu_count"] >= 1
    assert len(facts["hashes"]["faces"]) == 64
    assert facts["git_commit"] is None or len(facts["git_commit"]) == 40
    provenance = results.provenance
    assert (provenance.command, provenance.data) == ("fedaudit run tiny.toml", "orl")
    assert provenance.data_terms == faces.terms
    assert provenance.hashes["faces"] == facts["hashes"]["faces"]
    assert len(provenance.hashes["study"]) == 64
    judges = ("asset face_embedder", "asset lpips_alex", "asset openpeople")
    assert all(len(provenance.hashes[name]) == 64 for name in judges)
    assert provenance.seconds > 0


def test_denied_knowledge_is_refused() -> None:
    check_study(STUDY)
    for needed in ({"threat_model": "A"}, {"deny": ("auxiliary",)}):
        scenario = replace(STUDY.scenarios[0], **needed)
        with pytest.raises(KnowledgeError, match=r"scenario 'fresh'.*needs what threat model"):
            check_study(replace(STUDY, scenarios=(scenario,)))


@pytest.mark.parametrize("quick", [True, False])
def test_the_demo_is_a_valid_study(quick: bool) -> None:
    study = demo_study.study(quick)
    check_study(study)
    assert study.underpowered is quick
    assert (study.data.name, study.size) == ("orl", 32)
    color = demo_study.color_study(quick)
    check_study(color)
    assert color.underpowered
    assert (color.data.name, color.size) == ("openpeople", 64)
    assert {s.network.name for s in color.scenarios} == {"torchvision:resnet18"}


@pytest.mark.slow
def test_a_private_study_states_what_it_spent_and_what_it_changed(tmp_path: Path) -> None:
    """A stated ε holds for the training, not for the audited round; the network is told of."""
    defenses = (
        Choice("dpsgd", {"epsilon": 8.0}, label="eight"),
        Choice("client_dp", {"epsilon": 20.0, "quantile": 0.5}, label="clients"),
    )
    study = replace(
        STUDY,
        scenarios=(
            Scenario(
                "fresh",
                network=Choice("convnet", {"width": 4}),
                method=Choice("fedavg"),
                targets=1,
                defenses=defenses,
                attacks=(Choice("inverting_gradients", {"steps": 1}),),
                controls=False,
            ),
        ),
        federation=Federation(clients=3, rounds=2, photos=2),
        utility=True,
    )
    check_study(study)
    (note, other) = source_of(study, RunFolder(tmp_path)).notes()
    assert note.startswith("eight on convnet: batch norm in 8 layers was replaced by group norm")
    with open_run(tmp_path / "run", study, command="", evidence="none"):
        folder = RunFolder(tmp_path / "run")
        for job in expand(study):  # in this process, which knows the gallery already
            if isinstance(job, AttackJob):
                run_cell.run_cell(study, job.cell, folder, "none")
            elif isinstance(job, TrainJob):
                run_cell.run_train(study, job, folder)
    results = build_report(tmp_path / "run", "none")
    assert {note, other} <= set(results.limitations)
    rows = {row.defense: row for row in results.rows}
    eight, clients = rows["eight"], rows["clients"]
    assert eight.utility is not None
    (images,) = eight.utility.training_claims
    assert images.epsilon == pytest.approx(8.0, rel=5e-3)
    assert (images.delta, images.unit, images.rounds) == (1e-5, "image", 2)
    assert clients.utility is not None
    (whole,) = clients.utility.training_claims
    assert whole.epsilon == pytest.approx(20.0, rel=5e-3)
    assert (whole.unit, whole.rounds) == ("client", 2)
    (once,) = clients.claims
    assert (once.unit, once.rounds) == ("client", 1)
    assert once.epsilon < 20
    shown = {e.artifact: e for e in results.exposures if e.defense == "clients"}
    assert set(shown) == {"update", "clipped_bit"}
    assert shown["clipped_bit"].attack is None
    assert "no attack reads" in shown["clipped_bit"].note
