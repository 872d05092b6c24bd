"""Negative controls keep their power and their false alarms, however many rows there are."""

import numpy as np
import pytest

from fedaudit.stats.rare_matches import ERROR, rare_matches

CHANCE = 0.01
"""What the judge promises of one try, times ten."""


def rows_of(outcomes: np.ndarray) -> list[list[list[bool]]]:
    """Rows of units of tries, from `[rows, units, tries]`."""
    return [[list(map(bool, tries)) for tries in row] for row in outcomes]


def held(outcomes: np.ndarray) -> bool | None:
    return rare_matches(rows_of(outcomes), CHANCE, ["people"] * len(outcomes)).held


@pytest.mark.parametrize("rows", [1, 10, 48, 160])
@pytest.mark.parametrize("bad", [10, 16])
def test_people_who_match_somebody_else_everywhere_fail(rows: int, bad: int) -> None:
    """The rule before let 10 of 16 hold from 48 rows on, and 16 of 16 from 160 on."""
    outcomes = np.zeros((rows, 16, 1), bool)
    assert held(outcomes) is True
    outcomes[:, :bad] = True
    assert held(outcomes) is False


@pytest.mark.parametrize("tries", [1, 9, 90])
def test_one_bad_row_fails_among_many(tries: int) -> None:
    outcomes = np.zeros((160, 16, tries), bool)
    outcomes[77, :6] = True
    found = rare_matches(rows_of(outcomes), CHANCE, ["people"] * 160)
    assert (found.held, found.row, found.rate.hits) == (False, 77, 6)
    assert found.half == (tries > 2)


def test_few_matches_in_many_tries_are_chance_and_a_tenth_of_all_is_not() -> None:
    draw = np.random.default_rng(0)
    assert held(draw.random((1, 16, 9)) < CHANCE) is True
    assert held(draw.random((1, 16, 9)) < 0.1) is False


@pytest.mark.parametrize(("people", "rows"), [(1, 10), (2, 1000)])
def test_so_few_decide_nothing(people: int, rows: int) -> None:
    """Where even a match in every try were chance, a control holds nothing."""
    assert held(np.zeros((rows, people, 1), bool)) is None
    assert held(np.ones((rows, people, 1), bool)) is None
    assert held(np.ones((rows, people + 4, 1), bool)) is False


@pytest.mark.parametrize("rows", [1, 10, 48, 160])
@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_false_alarms(rows: int, alike: float) -> None:
    """At the largest chance that is allowed, in 2.5 % of studies at most, by simulation.

    A person's tries are one and the same across rows and tries with probability `alike`.
    """
    draw = np.random.default_rng(rows)
    studies, people, tries = 160, 16, 3
    alarms = 0
    for _ in range(studies):
        own = draw.random((rows, people, tries)) < CHANCE
        shared = draw.random((1, people, 1)) < CHANCE
        one = draw.random((rows, people, tries)) < alike
        alarms += held(np.where(one, shared, own)) is False
    assert alarms <= ERROR * studies + 3 * (ERROR * studies) ** 0.5
