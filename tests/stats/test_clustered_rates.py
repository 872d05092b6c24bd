import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaudit.stats.clustered_rates import rate_by_person, rate_of_pairs
from fedaudit.stats.intervals import clopper_pearson


@given(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda x: len(set(x)) == 2))
def test_one_photo_each_is_clopper_and_pearson(outcomes: list[bool]) -> None:
    """Up to n and n − 1 in the variance, which errs to the wide side."""
    found = rate_by_person(outcomes, range(len(outcomes)))
    low, high = clopper_pearson(sum(outcomes), len(outcomes))
    assert found.low <= low <= found.value <= high <= found.high
    n = len(outcomes)
    assert (found.low, found.high) == pytest.approx(
        clopper_pearson(sum(outcomes) * (n - 1) / n, n - 1)
    )


@given(st.lists(st.booleans(), min_size=2, max_size=12), st.integers(2, 5))
def test_photos_that_all_agree_are_one_each(people: list[bool], photos: int) -> None:
    many = [hit for hit in people for _ in range(photos)]
    found = rate_by_person(many, [k for k in range(len(people)) for _ in range(photos)])
    once = rate_by_person(people, range(len(people)))
    assert (found.hits, found.n) == (photos * once.hits, photos * once.n)
    # At most what a change of Student's quantile makes.
    assert found.high - found.low == pytest.approx(once.high - once.low, rel=0.35)
    assert found.high - found.low > clopper_pearson(found.hits, found.n)[1] - found.value


@pytest.mark.parametrize("hit", [False, True])
def test_where_nothing_varies_a_person_is_one(hit: bool) -> None:
    found = rate_by_person([hit] * 50, [k // 5 for k in range(50)])
    assert (found.low, found.high) == clopper_pearson(10 * hit, 10)
    pairs = rate_of_pairs(np.full((10, 10), 4 * hit), np.full((10, 10), 4))
    assert (pairs.low, pairs.high) == clopper_pearson(10 * hit, 10)


def test_one_person_whom_everybody_resembles_widens_a_rate_of_pairs() -> None:
    pairs = 5 * (1 - np.eye(40, dtype=int))
    even = np.zeros((40, 40), dtype=int)
    even[np.arange(8), np.arange(8) + 8] = 1
    lamb = np.zeros((40, 40), dtype=int)
    lamb[1:9, 0] = 1
    plain, skewed = rate_of_pairs(even, pairs), rate_of_pairs(lamb, pairs)
    assert plain.value == skewed.value == 8 / 7800
    assert skewed.high > 1.5 * plain.high
    assert plain.high > clopper_pearson(8, 7800)[1] * 0.95
