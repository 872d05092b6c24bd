"""Studies that are bad in a known way: none ends in a clean word, and each says why."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedaudit.core.scenario import Study
from fedaudit.core.source import SourceFacts
from fedaudit.core.trial import Trial
from fedaudit.reports import run_contents
from fedaudit.reports.build import summarize
from fedaudit.reports.comparison import Reason
from fedaudit.reports.limitations import limits_of_run
from fedaudit.reports.results import Results
from fedaudit.reports.rows import rows
from fedaudit.scoring.identity import Gallery
from fedaudit.study.inventory import Inventory
from fedaudit.study.manifest import new
from fedaudit.study.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).parent))
from made_up import ELIGIBLE, GAN, IG, SETTINGS, claim, gallery, line, lineup, noise, study, trials

Report = Callable[..., Results]
N = 100
"""People: enough to exclude 5 %."""


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """The report of made-up trials."""

    def make(
        asked: Study, *groups: Any, known: Gallery | None = None, missing: tuple[str, ...] = ()
    ) -> Results:
        judge = known or gallery()
        monkeypatch.setattr(run_contents, "_gallery", lambda *_: judge)
        manifest = new(asked, "by hand", "redacted")
        made = trials(*groups)
        return summarize(RunFolder(tmp_path), manifest, Inventory((), missing, {}, {}), made)

    return make


def audit(**more: Any) -> Study:
    """DP-SGD is deployed, and `none` its control."""
    asked: dict[str, Any] = {"defenses": ("none", "dpsgd"), "deployed": ("dpsgd",), "targets": N}
    return study(**(asked | more))


def deployed(hits: int = 0, n: int = N, **more: Any) -> list[Trial]:
    return line(hits, n, defense="dpsgd", **more)


def open_because(results: Results, reason: Reason, *words: str) -> None:
    """The study is not clean, in every twin, and says why."""
    told = results.headline
    assert (told.kind, told.reason) == ("INCONCLUSIVE", reason), told
    for word in words:
        assert word in told.sentence
    judged = [row for row in results.rows if row.role == "deployed"]
    clean = {"NO LEAK FOUND ABOVE LIMIT"}
    if reason != "not run":
        assert not clean & {row.verdict.kind for row in judged}
        assert not clean & {x.verdict for x in results.defenses if x.role == "deployed"}


def test_a_sound_study_is_clean(report: Report) -> None:
    """What the bad ones differ from: otherwise no test here could fail."""
    found = report(audit(), line(90, N), deployed(), noise(0))
    assert found.headline.kind == "NO LEAK FOUND ABOVE LIMIT"
    assert found.findings == ()
    assert found.rows[found.headline_row or 0].defense == "dpsgd"


def test_a_crippled_attack(report: Report) -> None:
    """It finds nobody under the defense, and nobody without one either; its SSIM is fine."""
    found = report(audit(), line(0, N), deployed(), noise(0))
    open_because(found, "no power", "no evidence of a defense", "give it more steps")


def test_an_attack_that_is_just_above_chance(report: Report) -> None:
    """Eight of a hundred are an excess; they are no attack whose failure says anything."""
    found = report(audit(), line(8, N), deployed(), noise(0))
    open_because(found, "no power", "re-identifies 8 of 100 people", "only 48 % or more")


def test_few_people_repeated(report: Report) -> None:
    """Eight people under nine seeds are eight, and they exclude nothing below 37 %."""

    def repeated(made: list[Trial]) -> list[Trial]:
        return [replace(t, cell=replace(t.cell, seed=seed)) for seed in range(9) for t in made]

    asked = replace(audit(targets=8), seeds=tuple(range(9)))
    found = report(asked, repeated(line(8, 8)), repeated(deployed(0, 8)), noise(0))
    open_because(found, "too few units", "0 of 8 people", "72 people without one")


def test_no_undefended_control(report: Report) -> None:
    asked = audit(defenses=("dpsgd", "dplc"))
    found = report(asked, line(0, N, defense="dpsgd"), noise(0))
    open_because(found, "no undefended control", 'add "none" to its defenses')


def test_a_control_with_another_attack(report: Report) -> None:
    """The strong attack is not the one that found nobody."""
    asked = audit(attacks=(IG, GAN))
    found = report(asked, line(100, N, attack=GAN), line(0, N, attack=IG), deployed(), noise(0))
    assert found.headline.kind == "INCONCLUSIVE"
    assert found.headline.reason == "no power"


def test_no_prior_only_control(report: Report) -> None:
    found = report(audit(), line(90, N), deployed(prior=None), noise(0))
    open_because(found, "no prior-only control", "controls = true")


def test_a_blind_attack_of_a_third_party(report: Report) -> None:
    """It works without a defense, and takes the defense for absent."""
    blind = [replace(t, adaptive="no") for t in deployed()]
    found = report(audit(), line(90, N), blind, noise(0))
    open_because(found, "blind attack", "takes the defense for absent")


def test_a_blind_attack_beside_one_that_knows_takes_nothing_away(report: Report) -> None:
    blind = [replace(t, adaptive="no") for t in deployed()]
    groups = (line(90, N), line(90, N, attack=GAN), blind, deployed(attack=GAN), noise(0))
    found = report(audit(attacks=(IG, GAN)), *groups)
    assert found.headline.kind == "NO LEAK FOUND ABOVE LIMIT"
    hits = (*groups[:2], [replace(t, adaptive="no") for t in deployed(30)], *groups[3:])
    assert report(audit(attacks=(IG, GAN)), *hits).headline.kind == "LEAK DEMONSTRATED"


def test_a_search_that_had_not_ended(report: Report) -> None:
    """Its objective still falls, or it does not say: a longer search may find somebody."""
    for half in ([], [replace(t, objective=0.9) for t in deployed(role="half_steps", prior=None)]):
        searched = [replace(t, closed_form=False, history=((0, 1.0),)) for t in deployed()]
        found = report(audit(), line(90, N), searched, half, noise(0))
        open_because(found, "unconverged", "may not have ended", "give it more steps")


def test_cells_that_were_not_run(report: Report) -> None:
    asked = audit(attacks=(IG, GAN))
    found = report(asked, line(90, N), line(90, N, attack=GAN), deployed(), noise(0))
    open_because(found, "not run", "fresh, DP-SGD, GAN inversion")


@pytest.mark.parametrize("lost", ["deployed", "prior_only", "control"])
def test_cells_that_failed_or_were_deleted(report: Report, lost: str) -> None:
    """Three of a hundred came back, and just these cells are gone: nobody among those left."""
    made = {"control": line(90, N), "deployed": deployed(3)}
    group = made["control" if lost == "control" else "deployed"]
    role = "prior_only" if lost == "prior_only" else "audit"
    gone = [t for t in group if t.cell.role == role and t.cell.target < 3]
    left = [t for trials in made.values() for t in trials if t not in gone]
    if lost != "deployed":
        left = [t for t in left if t.cell.defense != "dpsgd"] + [
            t for t in deployed(0) if t not in gone
        ]
    assert report(audit(), left, noise(0)).headline.kind == "NO LEAK FOUND ABOVE LIMIT"
    found = report(audit(), left, noise(0), missing=tuple(t.cell.key for t in gone))
    assert (found.headline.kind, found.headline.reason) == ("INCONCLUSIVE", "not run")
    assert "3 of the cells of inverting gradients" in found.headline.sentence
    assert found.defenses[0].verdict != "NO LEAK FOUND ABOVE LIMIT"


def test_a_mislabelled_gallery(report: Report) -> None:
    """Names are mixed up: the judge does not know the originals, so nobody would come back."""
    mixed = replace(gallery(), ceiling_hits=6, ceiling_first=5)
    found = report(audit(), line(90, N), deployed(), noise(0), known=mixed)
    assert found.headline.kind == "INVALID"
    assert "identity ceiling" in found.headline.sentence


def test_a_prior_that_knows_the_audited_people(report: Report) -> None:
    """Without the update it finds them as well: what it finds says nothing of the update."""
    found = report(audit(), line(90, N, prior=80), deployed(85, prior=80), noise(0))
    assert found.headline.kind == "INVALID"
    assert "prior-only" in found.headline.sentence


def test_an_attack_that_knows_some_labels(report: Report) -> None:
    """It returns those people whatever the update says, here four with it and two without.

    Chance made the control the weaker of the two: the test on identity alone would call it a leak.
    """
    asked = audit(targets=8)
    found = report(asked, line(8, 8), deployed(4, 8, prior=2), noise(0))
    open_because(found, "source not shown", "who it was", "so does its control")


def test_a_model_that_may_know_them_from_earlier_rounds(report: Report) -> None:
    """Three of eight come back, by a model that was trained on them: the update, or the model?"""
    asked = audit(targets=8)
    later = [replace(t, cell=replace(t.cell, round=5)) for t in deployed(3, 8)]
    found = report(asked, line(8, 8), later, noise(0))
    open_because(found, "source not shown", "trained on these people", "audit more people")
    assert report(asked, line(8, 8), deployed(3, 8), noise(0)).headline.kind == "LEAK DEMONSTRATED"


def test_an_attack_that_returns_one_photo_whatever_the_update_says(report: Report) -> None:
    """It is the photo of the first person, of whom it is right, and it finds as much by itself."""
    one = lineup({ELIGIBLE[0]: True}).cosines[0]

    def always(made: list[Trial]) -> list[Trial]:
        return [replace(t, lineup=replace(t.lineup, cosines=(one,))) for t in made if t.lineup]

    found = report(audit(), line(90, N), always(deployed(1, prior=1)), noise(0))
    assert found.headline.kind not in {"LEAK DEMONSTRATED", "TRACE OF IDENTITY"}


def test_a_broken_privacy_claim(report: Report) -> None:
    """Something looks at photos after the mechanism: the claim is a finding beside a quiet row."""
    broken = deployed(claims=(claim(8.0, "soteria"),))
    (found,) = report(audit(), line(90, N), broken, noise(0)).findings
    assert "privacy claim of DP-SGD" in found.title


def test_a_prior_that_says_it_was_trained_on_them() -> None:
    """Whatever it finds, or does not, is not the update's."""
    facts = SourceFacts(overlaps={IG: "the prior was trained on the audited people"})
    for hits in (0, N):
        found = rows(audit(), trials(line(90, N), deployed(hits)), {}, SETTINGS, source=facts)
        assert {row.verdict.kind for row in found} == {"INCONCLUSIVE"}
        judged = next(row for row in found if row.role == "deployed")
        assert judged.verdict.reason == "prior overlap"
        assert "trained on the audited people" in judged.verdict.sentence


def test_jobs_that_failed_are_told_as_such(tmp_path: Path) -> None:
    keys = ("fresh--none--a--audit--t000--s0", "fresh--none--a--audit--t001--s0")
    for failed, words in (({}, "were not run:"), ({keys[0]: "boom"}, "were not run or failed:")):
        stock = Inventory((), keys, {}, failed)
        told = [*limits_of_run(RunFolder(tmp_path), study(), stock, keys, trials(), (), None, {})]
        assert f"2 job(s) of the study {words} their cells are not tested." in told
