import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import t

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


def drawn_pairs() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts that differ by direction, with some of a person with themselves."""
    draw = np.random.default_rng(3)
    pairs = draw.integers(1, 6, (12, 12))
    return draw.binomial(pairs, draw.beta(1, 3, 12)[:, None]), pairs


@pytest.mark.parametrize(
    ("hits", "pairs"),
    [drawn_pairs(), (np.array([[0, 1, 0], [0] * 3, [0] * 3]), np.triu(np.ones((3, 3), int), 1))],
)
def test_the_variance_of_pairs_is_the_delete_one_jackknife(
    hits: NDArray[np.int64], pairs: NDArray[np.int64]
) -> None:
    """By leaving out each person in turn."""
    people = len(hits)
    rates = []
    for person in range(people):
        rest = [k for k in range(people) if k != person]
        rates.append(hits[np.ix_(rest, rest)].sum() / pairs[np.ix_(rest, rest)].sum())
    variance = (people - 1) / people * np.sum((np.array(rates) - np.mean(rates)) ** 2)
    value, count = hits.sum() / pairs.sum(), int(pairs.sum())
    wider = (t.ppf(0.975, count - 1) / t.ppf(0.975, people - 1)) ** 2
    independent = value * (1 - value) / variance * wider
    assert independent < count
    found = rate_of_pairs(hits, pairs)
    expected = clopper_pearson(value * independent, independent)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    assert (found.hits, found.n, found.unit) == (hits.sum(), count, "pairs")


def test_two_people_are_the_fewest_that_have_pairs() -> None:
    one_way = rate_of_pairs(np.array([[0, 1], [0, 0]]), np.array([[0, 1], [1, 0]]))
    assert (one_way.value, one_way.low, one_way.high) == (0.5, *clopper_pearson(1, 2))


@pytest.mark.parametrize("photos", [1, 4])
def test_one_person_alone_is_one(photos: int) -> None:
    found = rate_by_person([True] * photos, ["ada"] * photos)
    assert (found.low, found.high) == clopper_pearson(1, 1)
    assert found.n == photos
