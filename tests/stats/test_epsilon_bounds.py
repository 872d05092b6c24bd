"""Lower bounds of ε against check values, against other implementations, and against the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, ndtr
from scipy.stats import binom, nct

from fedaudit.core.errors import UsageError
from fedaudit.stats.epsilon_bounds import (
    epsilon_of_runs,
    gaussian_epsilon_of_runs,
    require_small_delta,
)
from fedaudit.stats.gaussian_dp import delta_of_mu, epsilon_of_mu, mu_of_epsilon
from fedaudit.stats.one_run_bounds import (
    epsilon_in_one_run,
    f_dp_epsilon_in_one_run,
    gaussian_epsilon_in_one_run,
    gaussian_epsilon_of_scores,
    guesses_needed,
    least_shift,
    one_run_p_value,
)

# Made with the auditing.py of jax-privacy 2.0.0 (whatever the mechanism: δ = 0, δ = 1e-5; f-DP).
JAX_PRIVACY = {
    (1000, 600, 600): (5.2972433, 5.2703995, 10.5148921),
    (100, 100, 100): (3.4929653, 3.4902159, 8.2161861),
    (1000, 500, 480): (2.7949890, 2.7926469, 4.9310799),
    (2000, 300, 290): (2.8269567, 2.8186460, 4.4086636),
    (1000, 1000, 800): (1.2543304, 1.2539841, 2.3332436),
    (500, 500, 280): (0.0892285, 0.0889930, 0.1751956),
}


def test_the_check_values() -> None:
    assert epsilon_in_one_run(1000, 600, 600, delta=1e-5) == pytest.approx(5.27039946, abs=1e-6)
    assert epsilon_in_one_run(100, 100, 100, delta=1e-5) == pytest.approx(3.49021587, abs=1e-6)
    assert epsilon_in_one_run(100, 100, 60, delta=1e-5) == pytest.approx(0.05167968, abs=1e-6)
    assert epsilon_of_runs(100, 100, 0, 100) == pytest.approx(3.28134635, abs=1e-6)
    assert epsilon_of_runs(500, 500, 0, 500) == pytest.approx(4.90559421, abs=1e-6)
    assert epsilon_of_runs(80, 100, 5, 100, delta=1e-5) == pytest.approx(1.83672635, abs=1e-6)
    shown = gaussian_epsilon_of_runs(80, 100, 5, 100, delta=1e-5)
    assert shown == pytest.approx(8.54761453, abs=1e-6)


@pytest.mark.parametrize("counts", JAX_PRIVACY)
def test_one_run_against_jax_privacy(counts: tuple[int, int, int]) -> None:
    pure, approximate, f_dp = JAX_PRIVACY[counts]
    assert epsilon_in_one_run(*counts) == pytest.approx(pure, abs=2e-6)
    assert epsilon_in_one_run(*counts, delta=1e-5) == pytest.approx(approximate, abs=2e-6)
    assert f_dp_epsilon_in_one_run(*counts, delta=1e-5) == pytest.approx(f_dp, abs=2e-6)


def test_gaussian_dp_against_dp_accounting() -> None:
    accounting = pytest.importorskip("dp_accounting")
    for epsilon in (0.1, 1.0, 8.0, 40.0):
        sigma = accounting.get_sigma_gaussian(epsilon, 1e-5)
        assert mu_of_epsilon(epsilon, 1e-5) == pytest.approx(1 / sigma, rel=1e-6)


@given(st.floats(0.01, 1e4), st.floats(1e-12, 0.01))
def test_epsilon_and_mu_are_inverse(mu: float, delta: float) -> None:
    epsilon = epsilon_of_mu(mu, delta)
    assert delta_of_mu(mu, epsilon) <= delta * (1 + 1e-6)
    if epsilon:
        assert mu_of_epsilon(epsilon, delta) == pytest.approx(mu, rel=1e-6)


def _exceeds(shown: list[float], rate: float, truth: float) -> float:
    """Probability that the bound of `shown[right]` lies above the truth."""
    n = len(shown) - 1
    return float(sum(binom.pmf(v, n, rate) for v in range(n + 1) if shown[v] > truth))


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_randomized_response_is_exceeded_in_five_percent(epsilon: float) -> None:
    shown = [epsilon_in_one_run(200, 200, v) for v in range(201)]
    wrong = _exceeds(shown, float(expit(epsilon)), epsilon)
    assert 0.02 < wrong <= 0.05


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_gaussian_noise_is_exceeded_in_five_percent(epsilon: float) -> None:
    delta, n = 1e-5, 200
    right = float(ndtr(mu_of_epsilon(epsilon, delta) / 2))
    tight = [gaussian_epsilon_in_one_run(n, v, delta=delta) for v in range(n + 1)]
    assert 0.02 < _exceeds(tight, right, epsilon) <= 0.05
    likely = [v if binom.pmf(v, n, right) > 1e-6 else 0 for v in range(n + 1)]
    for loose in (f_dp_epsilon_in_one_run, epsilon_in_one_run):
        known = {v: loose(n, n, v, delta=delta) for v in set(likely)}
        assert all(known[v] <= tight[v] + 1e-6 for v in known)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_means_of_scores_exceed_in_five_percent_and_show_more_than_their_sides(
    epsilon: float,
) -> None:
    rng, mu, delta = np.random.default_rng(1), mu_of_epsilon(epsilon, 1e-5), 1e-5
    bounds, sides = [], []
    for _ in range(400):
        inside, outside = rng.normal(mu, 1, 100), rng.normal(0, 1, 100)
        bounds.append(gaussian_epsilon_of_scores(3 * inside, 3 * outside, delta=delta))
        middle = np.median(np.concatenate((inside, outside)))
        right = int((inside > middle).sum() + (outside <= middle).sum())
        sides.append(gaussian_epsilon_in_one_run(200, right, delta=delta))
    assert 0.02 < np.mean(np.array(bounds) > epsilon) < 0.09  # 5 %, within four errors
    assert np.mean(bounds) > 1.05 * np.mean(sides)


def test_means_of_scores_without_noise_show_what_all_right_guesses_do() -> None:
    inside, outside = np.full(50, 2.0), np.full(50, 1.0)
    most = gaussian_epsilon_in_one_run(100, 100, delta=1e-5)
    assert gaussian_epsilon_of_scores(inside, outside, delta=1e-5) == most
    assert gaussian_epsilon_of_scores(outside, inside, delta=1e-5) == 0
    assert gaussian_epsilon_of_scores(inside, inside, delta=1e-5) == 0
    assert gaussian_epsilon_of_scores(inside[:0], outside, delta=1e-5) == 0


@pytest.mark.parametrize("apart", [0.3, 2.0, 5.0])
def test_the_least_shift_is_where_the_noncentral_t_has_its_quantile(apart: float) -> None:
    low = least_shift(apart, 400, 600, 0.95)
    root = np.sqrt(400 * 600 / 1000)
    assert nct.cdf(apart * root, 998, low * root) == pytest.approx(0.95, abs=1e-6)


def test_the_order_of_the_bounds_is_that_of_what_they_assume() -> None:
    counts = (1000, 500, 450)
    pure = epsilon_in_one_run(*counts, delta=1e-5)
    f_dp = f_dp_epsilon_in_one_run(*counts, delta=1e-5)
    model = gaussian_epsilon_in_one_run(500, 450, delta=1e-5)
    assert 0 < pure < f_dp < model


def test_chance_shows_nothing() -> None:
    assert epsilon_in_one_run(1000, 1000, 500, delta=1e-5) == 0
    assert f_dp_epsilon_in_one_run(1000, 1000, 500, delta=1e-5) == 0
    assert gaussian_epsilon_in_one_run(1000, 500, delta=1e-5) == 0
    assert epsilon_in_one_run(1000, 0, 0, delta=1e-5) == 0
    assert epsilon_of_runs(50, 100, 50, 100) == 0
    assert gaussian_epsilon_of_runs(50, 100, 50, 100, delta=1e-5) == 0


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 0.0), (1.0, 1e-5), (4.0, 1e-5), (8.0, 0.0)])
def test_the_fewest_guesses(epsilon: float, delta: float) -> None:
    count = guesses_needed(epsilon, delta=delta)
    assert count is not None
    assert one_run_p_value(count, count, count, epsilon, delta) < 0.05
    assert one_run_p_value(count - 1, count - 1, count - 1, epsilon, delta) >= 0.05


def test_no_number_of_guesses_is_enough_where_delta_is_too_large() -> None:
    assert guesses_needed(16.0, delta=1e-5) is None


def test_a_delta_above_one_over_n_is_refused() -> None:
    require_small_delta(1e-3, 1000)
    with pytest.raises(UsageError, match=r"larger than 1/n = 0.005 for n = 200 images.*1e-04"):
        require_small_delta(0.01, 200, "image")


def test_no_noise_is_no_privacy() -> None:
    assert epsilon_of_mu(math.inf, 1e-5) == math.inf
    assert mu_of_epsilon(math.inf, 1e-5) == math.inf
