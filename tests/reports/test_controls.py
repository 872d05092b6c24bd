import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedaudit.core.scenario import Study
from fedaudit.core.source import SourceFacts
from fedaudit.reports import run_contents
from fedaudit.reports.build import summarize
from fedaudit.reports.ceilings import ceilings
from fedaudit.reports.controls import any_failed, controls
from fedaudit.reports.html import render
from fedaudit.reports.negative_controls import negative_control
from fedaudit.reports.positive_control import positive_control
from fedaudit.reports.results import Control, Results
from fedaudit.reports.rows import invalidate
from fedaudit.reports.trials import Trials
from fedaudit.scoring.identity import Gallery
from fedaudit.study.inventory import Inventory
from fedaudit.study.manifest import new
from fedaudit.study.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).parent))
from made_up import GAN, IG, SETTINGS, gallery, line, noise, study, table, trial, trials
from sample import sample


def _controls(asked: Study, made: Trials, known: Gallery | None = None) -> dict[str, Control]:
    known = known or gallery()
    rows = table(asked, made.all)
    found = controls(asked, made, rows, known, known=ceilings(asked, {"fresh": known}))
    return {control.name.partition(" ")[0]: control for control in found}


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Results]:
    """`summarize`, without a run: the trials are given."""

    def make(asked: Study, *groups: Any) -> Results:
        monkeypatch.setattr(
            run_contents, "_gallery", lambda folder, study, federation, judge: gallery()
        )
        stock = Inventory((), (), {}, {})
        made = trials(*groups)
        return summarize(RunFolder(tmp_path), new(asked, "by hand", "redacted"), stock, made)

    return make


def test_all_controls_hold() -> None:
    found = _controls(study(), trials(line(8), noise(0)))
    assert list(found) == ["FMR", "identity", "positive", "noise", "wrong", "prior-only"]
    assert all(control.passed for control in found.values())
    assert not any_failed(tuple(found.values()))
    assert "0 of 8 people (95 % interval" in found["noise"].outcome
    assert "+0.30 over prior-only" in found["positive"].outcome
    assert "7,800 impostor pairs of 40 people" in found["FMR"].outcome


def test_a_page_counts_the_controls_in_one_way() -> None:
    """Of three, one held, one did not, and one was not run."""
    first = sample().controls[0]
    checks = tuple(replace(first, passed=passed) for passed in (True, False, None))
    page = render(replace(sample(), controls=checks), None, "none")
    counts = re.findall(r"(\d+ of \d+) control experiments held; (\d+) was not judged", page)
    assert counts == [("1 of 2", "1")] * 2
    assert page.count("control experiments held") == 2


def test_a_positive_control_on_faces_that_the_prior_knows_is_not_counted() -> None:
    """Of recorded runs: an attack that rebuilds what its prior learned may rebuild nothing else."""
    asked = study(attacks=(IG, GAN))
    known = [trial(t, attack=GAN, role="positive", ssim=0.8) for t in range(8)]
    others = [trial(t, attack=IG, role="positive") for t in range(8)]
    control = [trial(t, attack=a, role="positive_prior") for a in (IG, GAN) for t in range(8)]
    made = trials(known, others, control)
    facts = SourceFacts(positive="invented faces")
    assert positive_control(asked, made, (), facts).passed is True
    found = positive_control(asked, made, (), replace(facts, familiar=(GAN,)))
    assert found.passed is False
    assert found.outcome.count("not counted: its prior knows them") == 1
    assert positive_control(asked, made, (), replace(facts, familiar=(IG, GAN))).passed is None


@pytest.mark.parametrize("gain", [0.0, -0.1])
def test_the_positive_control_fails_where_nothing_is_gained(gain: float) -> None:
    made = trials(line(8, ssim=lambda t: 0.2 + gain + 0.01 * t), noise(0))
    assert _controls(study(), made)["positive"].passed is False


def test_two_targets_that_differ_decide_nothing_and_three_or_no_gain_do() -> None:
    def passed(*gains: float) -> bool | None:
        made = trials(line(len(gains), len(gains), ssim=lambda t: 0.2 + gains[t]), noise(0))
        return _controls(study(targets=len(gains)), made)["positive"].passed

    assert passed(0.6) is None
    assert passed(0.7, 0.5) is None
    assert passed(0.6, 0.59)
    assert passed(0.7, -0.9) is False
    assert passed(0.9, 0.1, -0.1) is False


def test_the_positive_control_is_the_best_undefended_attack() -> None:
    asked = study(attacks=(IG, GAN), defenses=("none", "dplc"))
    made = trials(
        line(0, ssim=lambda t: 0.1),
        line(0, attack=GAN),
        line(0, defense="dplc", ssim=lambda t: 0.9),
    )
    found = _controls(asked, made)["positive"]
    assert found.passed
    assert f"by {GAN}" in found.outcome


@pytest.mark.parametrize("more", [{"defenses": ("dplc",)}, {"batch_size": 4}])
def test_no_positive_control_without_an_undefended_single_image(more: dict[str, Any]) -> None:
    asked = study(**more)
    defense = asked.scenarios[0].defenses[0].label
    made = trials(line(8, defense=defense, batch_size=asked.scenarios[0].batch_size))
    found = _controls(asked, made)["positive"]
    assert found.passed is None
    assert "no undefended row" in found.outcome


def test_noise_above_its_limit_fails() -> None:
    assert _controls(study(), trials(line(8), noise(1)))["noise"].passed  # may be chance
    found = _controls(study(), trials(line(8), noise(4)))["noise"]
    assert found.passed is False
    assert "4 of 8 people" in found.outcome


def test_the_wrong_client_above_its_limit_fails() -> None:
    wrong = [trial(t, hits=(True,), wrong=t < 5) for t in range(8)]
    found = _controls(study(), trials(wrong, line(8)[8:]))["wrong"]
    assert found.passed is False


@pytest.mark.parametrize(("bad", "passed"), [(10, False), (1, True)])
def test_the_wrong_client_fails_however_many_rows_there_are(bad: int, passed: bool) -> None:
    """Each row is judged by itself: 48 of them give nobody 48 tries."""
    defenses = tuple(f"d{k}" for k in range(48))
    made = [trial(t, wrong=t < bad, defense=d) for d in defenses for t in range(16)]
    found = negative_control("wrong", made, lambda score: score.wrong_reidentified, 1e-3)
    assert found.passed is passed
    assert f"{bad} of 16 people (95 % interval" in found.outcome
    assert "in the worst of 48 rows (fresh, d0, " in found.outcome
    assert found.requirement.startswith("no row above 1 % a try (ten times the FMR), at an error")


def test_one_person_in_many_rows_decides_nothing() -> None:
    made = [trial(0, wrong=True, defense=f"d{k}") for k in range(10)]
    found = negative_control("wrong", made, lambda score: score.wrong_reidentified, 1e-3)
    assert found.passed is None
    assert found.outcome.endswith("so few decide nothing")


def test_a_prior_that_finds_people_by_itself_fails() -> None:
    found = _controls(study(), trials(line(8, prior=6)))["prior-only"]
    assert found.passed is False
    assert "6 of 8 people" in found.outcome


def test_controls_that_were_not_run_are_not_passed() -> None:
    found = _controls(study(), trials(line(8, prior=None, wrong=None)))
    assert [found[name].passed for name in ("noise", "wrong", "positive")] == [None] * 3
    assert found["noise"].outcome == "not run"
    assert "prior-only" not in found
    assert not any_failed(tuple(found.values()))


def test_calibration() -> None:
    made = trials(line(8))
    asked = study()
    rows = table(asked, made.all)
    none = controls(asked, made, rows, None)[0]
    few = controls(asked, made, rows, gallery(threshold=None))[0]
    assert (none.passed, few.passed) == (None, None)
    assert "too few" in few.outcome
    assert "3,000 impostor pairs for an FMR of 0.001" in few.requirement
    relaxed = controls(asked, made, rows, gallery(fmr=1e-2))[0]
    assert "at an FMR of 0.01" in relaxed.outcome


def test_ceilings() -> None:
    (found,) = ceilings(study(), {"a": gallery(), "b": gallery()})
    assert found.scenario == "all"
    assert (found.reid.hits, found.reid.n, found.rank1.hits) == (190, 200, 195)
    assert found.reid.low < 0.95 < found.reid.high
    assert (found.gallery_people, found.gallery_photos, found.threshold) == (40, 200, 0.4)
    assert ceilings(study(), {"a": None}) == ()
    assert ceilings(study(), {"a": gallery(threshold=None)}) == ()
    several = ceilings(study(), {"a": gallery(), "b": gallery(threshold=0.5)})
    assert [(line.scenario, line.threshold) for line in several] == [("a", 0.4), ("b", 0.5)]


def test_a_judge_that_does_not_know_the_originals_fails() -> None:
    blind = replace(gallery(), ceiling_hits=1)
    found = _controls(study(), trials(line(8), noise(0)), blind)["identity"]
    assert found.passed is False
    assert "1 of 200 photos" in found.outcome
    assert "fetch them again" in found.outcome
    at_the_floor = replace(gallery(), ceiling_hits=100)
    assert _controls(study(), trials(line(8)), at_the_floor)["identity"].passed
    strict = replace(study(), ceiling_floor=0.6)
    assert _controls(strict, trials(line(8)), at_the_floor)["identity"].passed is False


def test_without_a_ceiling_the_judge_was_not_tried() -> None:
    asked, made = study(), trials(line(8))
    found = controls(asked, made, table(asked, made.all), None)
    assert [(c.passed, c.outcome) for c in found if c.name.startswith("identity")] == [
        (None, "not run")
    ]


def test_a_failed_control_invalidates_every_row(summary: Callable[..., Results]) -> None:
    asked = study(attacks=(IG, GAN), defenses=("none", "dplc"))
    made = (
        line(8),
        line(8, attack=GAN),
        line(0, defense="dplc"),
    )
    held = summary(asked, *made, noise(0))
    assert {row.verdict.kind for row in held.rows} == {"LEAK DEMONSTRATED", "INCONCLUSIVE"}
    broken = summary(asked, *made, noise(8))
    assert {row.verdict.kind for row in broken.rows} == {"INVALID"}
    assert broken.headline.kind == "INVALID"
    assert {exhibit.verdict for exhibit in broken.exhibits} == {"INVALID"}
    assert not any(f.title.startswith("Faces can be rebuilt") for f in broken.findings)
    # Numbers stay: only what may be concluded from them is gone.
    assert [row.reid for row in broken.rows] == [row.reid for row in held.rows]


def test_a_failed_positive_control_invalidates_too(summary: Callable[..., Results]) -> None:
    blind = line(0, 100, ssim=lambda t: 0.2 + 0.01 * t)
    found = summary(study(targets=100), blind, noise(0))
    assert found.headline.kind == "INVALID"
    assert "NO LEAK" not in found.headline.kind


def test_rows_that_were_not_tested_stay_so() -> None:
    made = [trial(t, hits=(None,)) for t in range(8)]
    (row,) = invalidate(table(study(), made), SETTINGS)
    assert row.verdict.kind == "NOT TESTED"
