"""Intervals over people and trainings, by simulation."""

import numpy as np
import pytest

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
