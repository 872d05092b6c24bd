"""What a study can settle, before it runs, and what its rows count are the same units."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedaudit.core.capture import Capture
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.trial import Cell, ImageScore, Trial
from fedaudit.data.face_set import FaceSet
from fedaudit.reports.trials import Group
from fedaudit.reports.unit_scores import difference, outcomes, rate_of, unit_of, word_for
from fedaudit.scoring.score import score
from fedaudit.study.reach import place_of, reaches

FEDERATION: dict[str, Any] = {"clients": 3, "held_out": 10, "photos": 5}
DEFENSES: dict[str, tuple[dict[str, int], int, str]] = {
    "none": ({}, 6, "people"),
    "larger_batch": ({"images": 3}, 3, "groups of updates"),
    "secure_aggregation": ({}, 1, "groups of updates"),
}


@pytest.mark.parametrize("defense", DEFENSES)
def test_rows_count_what_the_dry_run_promises(
    intercept: Callable[..., Capture], faces: FaceSet, defense: str
) -> None:
    """Six targets of three clients: a client's next batch of three shares photos, so do sums."""
    settings, units, word = DEFENSES[defense]
    choice = Choice(defense, settings)
    scenario = Scenario("s", targets=6, defenses=(choice,))
    study = Study("s", (scenario,), federation=Federation(**FEDERATION))
    trials = []
    for target in range(6):
        secret = intercept(
            network="small_cnn", target=target, defense=defense, settings=settings, **FEDERATION
        ).secret
        assert secret is not None
        blank = Reconstruction(secret.images, torch.full((len(secret.images),), -1))
        scores, _, _ = score(secret, blank, gallery=None, embed=None)
        cell = Cell("s", "small_cnn", "fedsgd", 1, 1, defense, "a", "D", target, 0)
        trials.append(Trial(cell, scores, None, 0.0, 0, 0, 0.0, "no"))
    found = rate_of(Group(tuple(trials)), lambda _: True)
    promised = {one.scenario: one for one in reaches(study, faces)}
    assert (found.n, found.unit) == (units, word)
    assert promised.get(place_of("s", defense), promised["s"]).units == found.n


def test_people_beside_the_scored_ones_make_updates_one() -> None:
    scores = {
        (0, 0, 0): ImageScore("ada", beside=("bob",)),
        (1, 0, 0): ImageScore("cleo", beside=("bob",)),
        (2, 0, 0): ImageScore("dan"),
    }
    assert [*unit_of(scores).values()] == [0, 0, 1]
    assert [*unit_of(scores, scored_alone=True).values()] == [0, 1, 2]
    assert (word_for(scores), word_for(scores, scored_alone=True)) == (
        "groups of updates",
        "people",
    )


def test_a_comparison_counts_the_units_of_the_side_that_has_fewer() -> None:
    alone = {(t, 0, 0): ImageScore(f"p{t}", {"ssim": 0.1 * t}) for t in range(4)}
    summed = {place: replace(one, beside=("bob",)) for place, one in alone.items()}
    for sides in ((alone, summed), (summed, alone)):
        assert [len(side) for side in outcomes(*sides)] == [1, 1]
        gap = difference(*sides, lambda score: score.metrics["ssim"])
        assert gap is not None
        assert gap.n == 1
    assert [len(side) for side in outcomes(alone, alone)] == [4, 4]
