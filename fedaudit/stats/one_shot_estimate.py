"""ε of one federation, estimated from the cosines of client canaries; an estimate, no bound.

Canaries point in random directions of many dimensions, so that their cosines with what is released
are all but normal and all but independent: a Gaussian is fitted to them, and ε is that of telling
it from the cosines of canaries who were not there (Andrew et al., ICLR 2024, arXiv 2302.03098).
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from fedaudit.core.measures import Estimate

RESAMPLES = 200
"""Of the canaries, for the interval."""
MOST = 1e4
"""ε above which nothing is told apart any more."""


def epsilon_of_cosines(
    present: NDArray[np.float64],
    absent: float | None,
    *,
    delta: float,
    rng: np.random.Generator,
) -> Estimate:
    """ε that the cosines of canaries amount to, with the range that resampled canaries give.

    Args:
        present: `[m]`, cosines of canaries who took part; two or more.
        absent: Standard deviation of the cosines of canaries who did not, whose mean is 0; None
            where these point the other way, so that theirs are distributed as −`present`.
        delta: At which ε is stated, in (0, 1).
        rng: Of the resampling.

    >>> draws = np.random.default_rng(0)
    >>> cosines = draws.normal(0.01, 0.01, 2000)  # μ = 1: ε = 4.38 at this δ
    >>> round(epsilon_of_cosines(cosines, 0.01, delta=1e-5, rng=draws).value, 1)
    4.2
    """

    def epsilon(cosines: NDArray[np.float64]) -> float:
        mean, spread = float(cosines.mean()), float(cosines.std())
        other = (-mean, spread) if absent is None else (0.0, absent)
        return epsilon_between((mean, spread), other, delta)

    resamples = [epsilon(rng.choice(present, len(present))) for _ in range(RESAMPLES)]
    low, high = np.quantile(resamples, (0.025, 0.975))
    return Estimate(
        epsilon(present), float(low), float(high), len(present), "bootstrap over canaries"
    )


def epsilon_between(one: tuple[float, float], other: tuple[float, float], delta: float) -> float:
    """Least ε at which two Gaussians (mean, standard deviation) are (ε, δ)-indistinguishable."""

    def excess(epsilon: float) -> float:
        return max(_excess(one, other, epsilon), _excess(other, one, epsilon)) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
        if high > MOST:
            return math.inf
    return float(brentq(excess, 0.0, high, xtol=1e-9))


def _excess(one: tuple[float, float], other: tuple[float, float], epsilon: float) -> float:
    """P(S) − e^ε Q(S) where it is largest: on the set S where log p/q > ε, between two roots."""
    mean, spread = (one[0] - other[0]) / other[1], one[1] / other[1]  # q is the standard normal
    if spread == 0:
        return 1.0
    a, b = (1 - spread**-2) / 2, mean / spread**2
    c = -(mean**2) / (2 * spread**2) - math.log(spread) - epsilon
    if abs(a) < 1e-12:
        if b == 0:
            return 0.0
        root = -c / b
        sides = (-math.inf, root) if b < 0 else (root, math.inf)
        return _difference(*sides, mean, spread, epsilon)
    square = b * b - 4 * a * c
    if square <= 0:  # one sign everywhere
        return _difference(-math.inf, math.inf, mean, spread, epsilon) if a > 0 else 0.0
    far = -(b + math.copysign(math.sqrt(square), b)) / 2
    low, high = sorted((far / a, c / far))
    if a < 0:
        return _difference(low, high, mean, spread, epsilon)
    return _difference(-math.inf, low, mean, spread, epsilon) + _difference(
        high, math.inf, mean, spread, epsilon
    )


def _difference(low: float, high: float, mean: float, spread: float, epsilon: float) -> float:
    inside = _between((low - mean) / spread, (high - mean) / spread)
    outside = _between(low, high)
    return inside - (math.exp(epsilon + math.log(outside)) if outside > 0 else 0.0)


def _between(low: float, high: float) -> float:
    """Of the standard normal; tails keep their digits."""
    return float(ndtr(high) - ndtr(low)) if low < 0 else float(ndtr(-low) - ndtr(-high))
