"""Looks share out an error level, and intervals hold at all of them."""

from itertools import pairwise

import numpy as np
import pytest

from fedaudit.stats.intervals import clopper_pearson, targets_needed
from fedaudit.stats.sequential import looks, repeated_interval, shares


@pytest.mark.parametrize("targets", [1, 2, 3, 4, 5, 16, 72, 1000])
def test_looks_ascend_to_all_targets(targets: int) -> None:
    of = looks(targets)
    assert of[-1] == targets
    assert all(a < b for a, b in pairwise(of))
    assert all(n >= min(4, targets) for n in of)
    assert sum(shares(len(of))) == pytest.approx(1)
    assert min(shares(len(of))) > 0


@pytest.mark.parametrize("hits", [0, 1, 7, 16])
def test_one_look_is_the_exact_interval(hits: int) -> None:
    found = repeated_interval(hits, [16], (16,))
    assert found == pytest.approx(clopper_pearson(hits, 16), abs=1e-6)


def test_the_last_look_costs_a_clean_word_nothing() -> None:
    """No early look could have said it, so that all of the error level is left."""
    needed = targets_needed(0.05)
    assert repeated_interval(0, looks(needed), looks(needed))[1] <= 0.05


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.3, 0.8])
def test_an_interval_is_wrong_at_any_look_as_rarely_as_one(rate: float) -> None:
    """By the exact probability of every path, not by a simulation."""
    of = looks(24)
    for end in (0, 1):  # below, above
        alive, before = np.ones(1), 0
        wrong = 0.0
        for k, n in enumerate(of):
            for _ in range(n - before):
                alive = np.convolve(alive, [1 - rate, rate])
            before = n
            ends = [repeated_interval(hits, of[: k + 1], of)[end] for hits in range(n + 1)]
            out = np.array([low > rate if end == 0 else low < rate for low in ends])
            wrong += alive[out].sum()
            alive[out] = 0
        assert wrong <= 0.025
        assert rate != 0.3 or wrong > 0.01  # and it is not wide for nothing


def test_without_the_correction_it_would_be_wrong_too_often() -> None:
    """What the looks are corrected for is there to be corrected."""
    of, rate, alive, before, wrong = looks(24), 0.3, np.ones(1), 0, 0.0
    for n in of:
        for _ in range(n - before):
            alive = np.convolve(alive, [1 - rate, rate])
        before = n
        out = np.array([clopper_pearson(hits, n)[0] > rate for hits in range(n + 1)])
        wrong += alive[out].sum()
        alive[out] = 0
    assert wrong > 0.025


def test_units_that_are_exhausted_add_nothing() -> None:
    """Updates beyond the people of a data set bring no further unit."""
    low, high = repeated_interval(0, [16, 30, 30], (16, 32, 64))
    assert low == 0
    assert clopper_pearson(0, 30)[1] <= high < 0.13
