"""Rank correlation with its exact or randomized test."""

from itertools import permutations
from math import factorial

import numpy as np
from scipy.stats import rankdata

MOST = 5040
"""Orders that are all tried; of more, as many at random."""


def rank_correlation(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Spearman's ρ, and the share of orders in which it would be as large (one-sided).

    Args:
        first: `[n]`, n ≥ 2, not all equal.
        second: `[n]`, likewise.
        rng: Of random orders.

    >>> a, b = np.arange(5.0), np.array([0.0, 1, 2, 4, 3])
    >>> rho, p = rank_correlation(a, b, np.random.default_rng(0))
    >>> round(rho, 2), round(p * 120)
    (0.9, 5)
    """
    one, other = (rankdata(x) - (len(x) + 1) / 2 for x in (first, second))
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    if not scale:
        return 0.0, 1.0
    own = float(one @ other) / scale
    if factorial(len(one)) <= MOST:
        orders = np.array(list(permutations(range(len(one)))))
        return own, float((one[orders] @ other / scale >= own - 1e-9).mean())
    orders = np.array([rng.permutation(len(one)) for _ in range(MOST - 1)])
    return own, float((1 + (one[orders] @ other / scale >= own - 1e-9).sum()) / MOST)
