"""p-values by drawing are exact whatever ends the drawing, and as small as is asked."""

import numpy as np
import pytest

from fedaudit.stats.drawn_p_values import DRAWN, ENOUGH, chunks_for, drawn_p_value
from fedaudit.stats.exchange import exchange_test
from fedaudit.stats.intervals import holm
from fedaudit.stats.randomization import identity_test, rank_scores


def test_as_rare_as_it_says_at_every_level() -> None:
    """Of studies in which nothing is there; levels at, between and beyond the ends of chunks."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(20_000):
        extreme = random.random()  # the share of draws that are as extreme is uniform
        found.append(drawn_p_value(lambda _: int(random.binomial(99, extreme)), 20, 99))  # noqa: B023
    assert min(found) == pytest.approx(1 / (20 * 99 + 1))
    for level in (0.001, 0.004, 0.0055, 0.01, 0.05, 0.1, 0.11, 0.12, 0.5):
        share = np.mean(np.array(found) <= level)
        assert share <= level + 3 * (level / len(found)) ** 0.5


def test_drawing_ends_with_the_chunk_that_has_enough() -> None:
    asked = []

    def hits_in(chunk: int) -> int:
        asked.append(chunk)
        return ENOUGH // 2

    assert drawn_p_value(hits_in, 7, 1000) == (ENOUGH + 1) / 2001
    assert asked == [0, 1]
    assert drawn_p_value(lambda _: 0, 7, 1000) == 1 / 7001


def test_a_perfect_row_is_demonstrated_among_a_thousand() -> None:
    """One chunk leaves an adjusted p of 0.25 to it, as it did whatever came back."""
    cosines = np.zeros((16, 30))
    cosines[range(16), range(16)] = 1
    asked = chunks_for(0.05 * 0.2 / 999 / 10)
    alone, among = (
        identity_test(rank_scores(cosines), range(16), updates=16, chunks=chunks)
        for chunks in (1, asked)
    )
    assert (alone.p_value, among.p_value) == (1 / (DRAWN + 1), among.smallest)
    weights = [0.8] + [0.2 / 999] * 999
    assert holm([0.6, alone.p_value] + [0.6] * 998, weights)[1] > 0.2
    assert holm([0.6, among.p_value] + [0.6] * 998, weights)[1] <= 0.005
    assert exchange_test([1.0] * 30, 1.0, chunks=3) == 1 / (3 * DRAWN + 1)


def test_a_row_that_is_not_extreme_needs_no_more_than_one_chunk() -> None:
    scores = np.random.default_rng(1).standard_normal((6, 30))
    once, often = (identity_test(scores, range(6), updates=6, chunks=k) for k in (1, 50))
    assert once.p_value == often.p_value
    assert often.smallest < once.smallest
