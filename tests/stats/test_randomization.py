from math import perm

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from fedaudit.stats import randomization
from fedaudit.stats.randomization import identity_test, rank_scores, within_strata_test


def test_every_assignment_has_a_p_value_of_its_own() -> None:
    """Exactly uniform over all assignments, whatever the scores are: that is what exact means."""
    scores = np.random.default_rng(1).standard_cauchy((2, 5))
    everybody = [(a, b) for a in range(5) for b in range(5) if a != b]
    found = sorted(identity_test(scores, pair, updates=2).p_value for pair in everybody)
    assert found == pytest.approx([(k + 1) / 20 for k in range(20)])


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_at_most_alpha_of_all_assignments_reject(places: int, more: int, seed: int) -> None:
    """Ties included: few different scores make many."""
    candidates = places + more
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 3, (places, candidates))
    tried = randomization._all(candidates, places)
    some = tried[draw.permutation(len(tried))[:60]]
    found = [identity_test(scores, true, updates=1).p_value for true in some]
    assert all(1 / len(tried) <= p <= 1 for p in found)
    if len(some) == len(tried):
        for level in (0.05, 0.25, 0.5):
            assert sum(p <= level for p in found) <= level * len(found) + 1e-9


def test_drawn_assignments_are_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomization, "DRAWN", 199)
    random = np.random.default_rng(2)
    audits = [(random.standard_normal((6, 30)), random.permutation(30)[:6]) for _ in range(400)]
    found = [identity_test(scores, true, updates=6).p_value for scores, true in audits]
    assert perm(30, 6) > randomization.ENUMERATED
    assert min(found) >= 1 / 200
    assert kstest(found, "uniform").pvalue > 0.01


def test_drawn_assignments_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(3).standard_normal((3, 9))
    true = (4, 0, 8)
    all_tried = identity_test(scores, true, updates=3)
    monkeypatch.setattr(randomization, "ENUMERATED", 1)
    drawn = identity_test(scores, true, updates=3)
    assert (all_tried.exact, drawn.exact) == (True, False)
    assert drawn.p_value == pytest.approx(all_tried.p_value, abs=0.01)
    assert drawn == identity_test(scores, true, updates=3), "the same in every report"


@pytest.mark.parametrize(("places", "candidates"), [(3, 3), (5, 40), (12, 12)])
def test_assignments_give_each_place_somebody_else(places: int, candidates: int) -> None:
    drawn = randomization._random(candidates, places, np.random.default_rng(0))
    assert drawn.min() == 0
    assert drawn.max() == candidates - 1
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    shares = np.bincount(drawn.ravel(), minlength=candidates) / drawn.size
    assert shares == pytest.approx(np.full(candidates, 1 / candidates), rel=0.1)


def test_a_face_that_comes_back_is_found_with_four_targets() -> None:
    cosines = np.random.default_rng(4).uniform(-0.3, 0.3, (4, 30))
    cosines[range(4), (3, 9, 1, 20)] = 0.8
    test = identity_test(rank_scores(cosines), (3, 9, 1, 20), updates=4)
    assert test.p_value == test.smallest == 1 / 20_000
    assert (test.statistic, test.people, test.updates, test.candidates) == (4, 4, 4, 30)


def test_what_so_few_people_can_show_is_said() -> None:
    one = identity_test([[0.9, 0.1, 0.2]], [0], updates=1)
    assert one.p_value == one.smallest == pytest.approx(1 / 3)
    assert identity_test([[0.3]], [0], updates=1).p_value == 1


def test_scores_of_all_alike_say_nothing() -> None:
    assert identity_test(np.full((3, 6), 0.1), (0, 1, 2), updates=3).p_value == 1


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(0.1, 3), st.floats(-2, 2))
def test_ranks_are_of_the_order_alone(row: list[float], times: float, plus: float) -> None:
    values = np.round(row, 3)
    moved = rank_scores(np.round(values * round(times, 2) + round(plus, 2), 9))
    assert moved == pytest.approx(rank_scores(values))
    assert moved.max() <= 1


@pytest.mark.parametrize("true", [(1, 1), (0, 5), (-1, 0)])
def test_a_place_has_one_candidate(true: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="each place has a person of its own"):
        identity_test(np.zeros((2, 5)), true, updates=2)


def test_within_strata_every_assignment_has_a_p_value_of_its_own() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.standard_cauchy((1, 3)), draw.standard_cauchy((2, 3))
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    found = sorted(
        within_strata_test([(first, [one]), (second, pair)], updates=3).p_value
        for one in range(3)
        for pair in pairs
    )
    assert found == pytest.approx([(k + 1) / 18 for k in range(18)])


def test_what_says_the_class_alone_says_nothing_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of one class have equal scores for all of it: no assignment fits better."""
    blocks = [(np.ones((2, 6)), (0, 1)), (np.zeros((2, 6)), (2, 3))]
    assert within_strata_test(blocks, updates=4).p_value == 1
    monkeypatch.setattr(randomization, "ENUMERATED", 1)
    table = np.random.default_rng(0).normal(size=(2, 6))
    alike = [(table, (0, 1)), (-table, (0, 1))]
    # Blocks of one shape are drawn apart: drawn together, these would always cancel.
    assert 0.05 < within_strata_test(alike, updates=4).p_value < 0.95
