"""Cells of a tiny study from end to end: real faces, all roles, a fresh and a trained model."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedaudit.core.errors import KnowledgeError
from fedaudit.core.scenario import Choice, Scenario
from fedaudit.reports.build import build_report
from fedaudit.reports.results import Results
from fedaudit.scoring.score import score
from fedaudit.study import judge, run_cell
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.sources import source_of
from fedaudit.study.study_check import check_study

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_study import CELLS, STUDY, first_cell


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
        source_of(STUDY, folder).capture(first_cell(s.name)).seen for s in STUDY.scenarios
    )
    assert (fresh.round, trained.round) == (1, 2)
    assert fresh.before.keys() == trained.before.keys()
    assert any(not torch.equal(fresh.before[k], trained.before[k]) for k in fresh.before)


def test_denied_knowledge_is_refused() -> None:
    check_study(STUDY)
    for needed in ({"threat_model": "A"}, {"deny": ("auxiliary",)}):
        scenario = replace(STUDY.scenarios[0], **needed)
        with pytest.raises(KnowledgeError, match=r"scenario 'fresh'.*needs what threat model"):
            check_study(replace(STUDY, scenarios=(scenario,)))
