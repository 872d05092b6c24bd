"""Intervals over people and trainings, by simulation and by hand."""

import numpy as np
import pytest
from scipy.stats import t

from fedaudit.stats.crossed import crossed_mean


@pytest.mark.parametrize(
    ("people", "runs", "of_people", "of_runs", "of_both"),
    [(10, 3, 1.0, 0.0, 0.3), (10, 3, 0.3, 1.0, 0.3), (6, 1, 1.0, 0.0, 0.0), (5, 3, 0.0, 0.0, 1.0)],
)
def test_the_interval_covers_the_mean_of_other_people_and_runs(
    people: int, runs: int, of_people: float, of_runs: float, of_both: float
) -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        table = (
            of_people * draw.normal(size=(1, people))
            + of_runs * draw.normal(size=(runs, 1))
            + of_both * draw.normal(size=(runs, people))
        )
        estimate = crossed_mean(table.tolist(), low=-9, high=9)
        covered += estimate.low <= 0 <= estimate.high
    assert covered >= 930  # 95 % less three standard errors


def test_a_constant_has_no_width_and_the_range_cuts() -> None:
    estimate = crossed_mean([[0.7, 0.7], [0.7, 0.7]])
    assert (estimate.low, estimate.value, estimate.high, estimate.n) == (0.7, 0.7, 0.7, 2)
    assert crossed_mean([[1.0, 0.6]]).high == 1.0
    assert crossed_mean([[0.0, 0.6]], low=-1.0).low < 0
    assert crossed_mean([[0.0, 0.1]]).low == 0.0


def test_one_training_is_students_interval_over_people() -> None:
    values = [0.31, 0.52, 0.44, 0.70, 0.38]
    low, high = t.interval(0.95, 4, np.mean(values), np.std(values, ddof=1) / 5**0.5)
    estimate = crossed_mean([values])
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-9)
    assert (estimate.n, estimate.method) == (5, "t over people, one training")


def test_two_trainings_by_hand() -> None:
    """Means of people 0.2, 0.4, 0.9 and of runs 0.4, 0.6; Satterthwaite's degrees of freedom."""
    table = [[0.1, 0.3, 0.8], [0.3, 0.5, 1.0]]
    people, runs = 2 * np.var([0.2, 0.4, 0.9], ddof=1), 3 * np.var([0.4, 0.6], ddof=1)
    freedom = (people + runs) ** 2 / (people**2 / 2 + runs**2 / 1)
    half = t.ppf(0.975, freedom) * ((people + runs) / 6) ** 0.5
    estimate = crossed_mean(table, low=-9, high=9)
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-9)
    assert estimate.value == pytest.approx(0.5)
    assert (estimate.n, estimate.method) == (3, "t over people and 2 trainings")
