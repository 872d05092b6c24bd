import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from fedaudit.core.measures import Estimate
from fedaudit.stats.intervals import (
    clopper_pearson,
    holm,
    mean,
    paired_p_value,
    paired_rate_difference,
    rate,
    targets_needed,
)

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def _difference(
    pairs: Sequence[tuple[bool, bool]], people: Sequence[int] | None = None
) -> Estimate:
    """Every pair is another person unless told otherwise."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return paired_rate_difference(first, second, people or range(len(pairs)))


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 2, 8, 30, 128])
def test_intervals_are_scipys_exact_ones(n: int, confidence: float) -> None:
    for hits in {0, 1, n // 3, n - 1, n}:
        exact = binomtest(hits, n).proportion_ci(confidence, method="exact")
        ours = clopper_pearson(hits, n, confidence=confidence)
        assert ours == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize(("n", "percent"), [(30, 9.5), (64, 4.6), (128, 2.3), (300, 1.0)])
def test_none_of_n_still_allows(n: int, percent: float) -> None:
    """One-sided 95 % is the upper end of two-sided 90 %."""
    low, high = clopper_pearson(0, n, confidence=0.9)
    assert low == 0
    assert round(100 * high, 1) == percent


@given(st.integers(1, 60), st.data())
def test_intervals_hold_the_rate_and_mirror(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    low, high = clopper_pearson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    assert low < high
    mirror = clopper_pearson(n - hits, n)
    assert mirror == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_a_rate_knows_its_counts() -> None:
    found = rate([True, False, False, True])
    assert (found.hits, found.n, found.value) == (2, 4, 0.5)
    assert (found.low, found.high) == clopper_pearson(2, 4)


def test_holm_by_hand() -> None:
    # 4·0.005, 3·0.01, 2·0.03, 1·0.04 → the last may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(P_VALUES)
def test_holm_is_monotone_and_between_raw_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert len(adjusted) == len(p_values)
    for raw, now in zip(p_values, adjusted, strict=True):
        assert raw <= now <= min(1.0, len(p_values) * raw) + 1e-12
    ranked = sorted(zip(p_values, adjusted, strict=True))
    assert all(a[1] <= b[1] for a, b in pairwise(ranked))


@given(P_VALUES, st.randoms())
def test_holm_does_not_depend_on_the_order(p_values: list[float], shuffle: object) -> None:
    backward = holm(p_values[::-1])[::-1]
    assert backward == pytest.approx(holm(p_values))


@given(PAIRS)
def test_the_difference_agrees_with_mcnemar(pairs: list[tuple[bool, bool]]) -> None:
    """Its interval excludes 0 exactly where the two-sided exact test rejects at 5 %."""
    first = sum(a and not b for a, b in pairs)
    second = sum(b and not a for a, b in pairs)
    found = _difference(pairs)
    assert found.value == pytest.approx((first - second) / len(pairs))
    assert found.low <= found.value <= found.high
    p_value = binomtest(first, first + second).pvalue if first + second else 1.0
    assert (found.low > 0 or found.high < 0) == (p_value < 0.05)
    assert (found.low > 0) == (p_value < 0.05 and first > second)


@given(PAIRS)
def test_the_difference_is_antisymmetric(pairs: list[tuple[bool, bool]]) -> None:
    found, turned = _difference(pairs), _difference([(b, a) for a, b in pairs])
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-found.value, -found.high, -found.low), abs=1e-9
    )
    assert -1 <= found.low < found.high <= 1


def test_eight_of_eight_is_not_certainty() -> None:
    found = _difference([(True, False)] * 8)
    assert found.value == 1
    least = clopper_pearson(8, 8)[0]
    assert found.low == pytest.approx((2 * least - 1) * least)
    assert 0.1 < found.low < 0.3
    assert found.high == 1


def test_no_hits_at_all_is_not_certainty() -> None:
    for outcome in (True, False):
        found = _difference([(outcome, outcome)] * 8)
        assert found.value == 0
        assert found.high == -found.low == clopper_pearson(0, 8)[1]


@pytest.mark.parametrize("pair", [(True, False), (False, False)])
def test_targets_of_few_people_say_less(pair: tuple[bool, bool]) -> None:
    widths = []
    for people in (16, 8, 4, 2, 1):
        found = _difference([pair] * 16, [k % people for k in range(16)])
        widths.append(found.high - found.low)
    assert all(a < b for a, b in pairwise(widths))
    assert widths[-1] > 0.9


def test_repeating_everybody_proves_nothing() -> None:
    """Each pair four times: the same interval as once."""
    pairs = [(True, False)] * 5 + [(False, True)] + [(False, False)] * 4
    repeated = _difference(pairs * 4, list(range(10)) * 4)
    once = _difference(pairs)
    assert (repeated.value, repeated.low, repeated.high) == pytest.approx(
        (once.value, once.low, once.high)
    )


def test_the_one_sided_p_value() -> None:
    assert paired_p_value([True] * 8, [False] * 8, range(8)) == pytest.approx(0.5**8)
    assert paired_p_value([False] * 8, [True] * 8, range(8)) == 1.0
    assert paired_p_value([True, True], [True, True], range(2)) == 1.0
    assert paired_p_value([], [], []) == 1.0
    # Two people, however many photos of them, are two observations.
    assert paired_p_value([True] * 16, [False] * 16, [0, 1] * 8) == pytest.approx(0.25)
    # Pairs on which both agree do not count.
    mixed = paired_p_value([True] * 6 + [False, True], [False] * 6 + [True, True], range(8))
    assert mixed == pytest.approx((7 + 1) / 2**7)


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="argument 2 is"):
        paired_p_value([True], [True, False], [0])
    with pytest.raises(ValueError, match="argument 2 is"):
        mean([1.0, 2.0], ["a"])


VALUES = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=12)


@given(VALUES, st.integers(1, 3))
def test_means_have_students_interval_over_people(each: list[float], photos: int) -> None:
    """Scipy's, over the people's means; photos of one person add nothing."""
    people = [k for k in range(len(each)) for _ in range(photos)]
    found = mean([each[k] for k in people], people)
    n = len(each)
    error = float(np.std(each, ddof=1)) / n**0.5
    low, high = t.interval(0.95, n - 1, np.mean(each), error) if error else (each[0], each[0])
    assert found.n == n
    assert found.value == pytest.approx(np.mean(each))
    assert (found.low, found.high) == pytest.approx((low, high))
    cut = mean([each[k] for k in people], people, (-0.5, 0.5))
    assert (cut.low, cut.high) == (max(-0.5, found.low), min(0.5, found.high))


def test_a_person_of_many_photos_counts_no_more_than_their_share() -> None:
    """The jackknife over people, on clusters of different sizes."""
    draw = np.random.default_rng(5)
    sizes = draw.integers(1, 6, 40)
    people = np.repeat(np.arange(40), sizes)
    values = draw.standard_normal(40)[people] + 0.1 * draw.standard_normal(len(people))
    found = mean(values.tolist(), people.tolist())
    left = np.array([values[people != k].mean() for k in range(40)])
    error = (39 / 40 * ((left - left.mean()) ** 2).sum()) ** 0.5
    assert (found.high - found.low) / 2 == pytest.approx(t.ppf(0.975, 39) * error, rel=0.1)


def test_one_person_alone_has_no_interval() -> None:
    found = mean([0.2, 0.4], ["ada", "ada"], (-1, 1))
    assert (found.low, found.high, found.n) == (-1, 1, 1)
    assert found.value == pytest.approx(0.3)
    unbounded = mean([0.2, 0.4], ["ada", "ada"])
    assert unbounded.low == unbounded.high == unbounded.value
    assert unbounded.method == "one alone has no interval"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.3]), st.sampled_from([0.9, 0.95]))
def test_targets_needed_is_the_first_that_settles_it(limit: float, confidence: float) -> None:
    needed = targets_needed(limit, confidence=confidence)
    assert clopper_pearson(0, needed, confidence=confidence)[1] <= limit
    assert clopper_pearson(0, needed - 1, confidence=confidence)[1] > limit
    closed = math.log((1 - confidence) / 2) / math.log(1 - limit)
    assert needed == math.ceil(closed)
