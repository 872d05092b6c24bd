"""Gaussian differential privacy: μ, and the (ε, δ) that go with it (Dong, Roth & Su, JRSS B 2022).

A mechanism is μ-GDP where telling two neighboring data sets apart by its output is no easier than
telling N(0, 1) from N(μ, 1). Noise of standard deviation σ over the sensitivity, k times over the
same data, is exactly √k/σ-GDP; arXiv 1905.02383, corollaries 2.13 and 3.3.
"""

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri

MOST = 1e6
"""μ above which nothing is private, whatever δ: ε would have twelve digits."""


def delta_of_mu(mu: float, epsilon: float) -> float:
    """δ(ε) of a μ-GDP mechanism; μ ≥ 0, ε ≥ 0.

    >>> round(delta_of_mu(1.0, 1.0), 6)
    0.126937
    """
    if mu == 0:
        return 0.0
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(first) * -math.expm1(min(0.0, second - first))


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Least ε at which a μ-GDP mechanism is (ε, δ)-DP; δ in (0, 1), infinite above `MOST`.

    >>> round(epsilon_of_mu(1.0, 1e-5), 6)
    4.377178
    """
    if mu > MOST:
        return math.inf
    if delta_of_mu(mu, 0.0) <= delta:
        return 0.0
    high = mu * (mu / 2 - float(ndtri(delta)))  # where the first term alone is δ
    return float(brentq(lambda e: delta_of_mu(mu, e) - delta, 0.0, max(high, 1e-9), xtol=1e-12))


def mu_of_epsilon(epsilon: float, delta: float) -> float:
    """Largest μ at which a μ-GDP mechanism is (ε, δ)-DP; the inverse of `epsilon_of_mu`.

    >>> round(mu_of_epsilon(8.0, 1e-5), 4)
    1.666
    """
    if math.isinf(epsilon):
        return math.inf
    high = 1.0
    while delta_of_mu(high, epsilon) <= delta:
        high *= 2
    return float(brentq(lambda mu: delta_of_mu(mu, epsilon) - delta, 0.0, high, xtol=1e-12))
