"""The estimate from client canaries, against integration by numbers and known Gaussians."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from fedaudit.stats.gaussian_dp import epsilon_of_mu
from fedaudit.stats.one_shot_estimate import epsilon_between, epsilon_of_cosines

DELTA = 1e-5


def integrated(cosines: NDArray[np.float64], null: float) -> float:
    """As reference/epsilon_bounds.py does it: both hockey-stick divergences on a fine grid."""
    mean, spread = float(cosines.mean()), float(cosines.std())
    z = np.linspace(
        min(-10 * null, mean - 10 * spread), max(10 * null, mean + 10 * spread), 400_001
    )
    lp, lq = norm.logpdf(z, mean, spread), norm.logpdf(z, 0, null)

    def delta(epsilon: float) -> float:
        one = np.clip(np.exp(lp) - np.exp(epsilon + lq), 0, None).sum()
        other = np.clip(np.exp(lq) - np.exp(epsilon + lp), 0, None).sum()
        return float(max(one, other) * (z[1] - z[0]))

    return float(brentq(lambda e: delta(e) - DELTA, 0, 200, xtol=1e-8))


@pytest.mark.parametrize(("mean", "spread"), [(0.02, 0.01), (0.01, 0.012), (0.01, 0.008)])
def test_it_agrees_with_integration_by_numbers(mean: float, spread: float) -> None:
    draws = np.random.default_rng(0)
    cosines = draws.normal(mean, spread, 500)
    estimate = epsilon_of_cosines(cosines, 0.01, delta=DELTA, rng=draws)
    assert estimate.value == pytest.approx(integrated(cosines, 0.01), abs=1e-5)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 500


def test_equal_spreads_are_gaussian_dp() -> None:
    for mu in (0.3, 1.0, 3.0):
        between = epsilon_between((mu, 1.0), (0.0, 1.0), DELTA)
        assert between == pytest.approx(epsilon_of_mu(mu, DELTA), abs=1e-6)
    draws = np.random.default_rng(1)
    cosines = draws.normal(0.5, 1.0, 20_000)
    mirrored = epsilon_of_cosines(cosines, None, delta=DELTA, rng=draws)
    assert mirrored.value == pytest.approx(epsilon_of_mu(1.0, DELTA), rel=0.05)


def test_cosines_of_nobody_show_next_to_nothing() -> None:
    draws = np.random.default_rng(2)
    nothing = epsilon_of_cosines(draws.normal(0, 0.01, 4000), 0.01, delta=DELTA, rng=draws)
    assert nothing.value < 0.5
