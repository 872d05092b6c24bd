"""Intervals, paired differences and corrections for many comparisons."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import accumulate

import numpy as np
import torch
from scipy.special import betaincinv, stdtrit
from torch import Tensor

from fedaudit.core.measures import ALONE, Estimate, Rate


def clopper_pearson(hits: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a rate (Clopper & Pearson 1934).

    >>> tuple(round(x, 3) for x in clopper_pearson(0, 30))
    (0.0, 0.116)
    """
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def rate(outcomes: Sequence[bool], unit: str = "people") -> Rate:
    """A rate with its exact interval; `outcomes`, of independent units, must not be empty."""
    return rate_of(sum(outcomes), len(outcomes), unit)


def rate_of(hits: int, n: int, unit: str = "people") -> Rate:
    """The same from counts; n is not 0."""
    return Rate(hits, n, hits / n, *clopper_pearson(hits, n), unit)


def auc(true: Tensor, false: Tensor) -> float:
    """Area under the ROC curve: how often one of `true [n]` is above one of `false [m]`.

    Ties count half (Mann & Whitney 1947).

    >>> auc(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    0.875
    """
    ascending = false.sort().values
    below, upto = (torch.searchsorted(ascending, true, right=right) for right in (False, True))
    return float((below + upto).double().mean() / (2 * len(false)))


def mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Mean with Student's interval over clusters (people); n is their number.

    The mean is a ratio of sums over clusters, whose variance is the usual linear one (Cochran 1977,
    equation 6.13), so that clusters may differ in size. A percentile bootstrap of six people covers
    85 % in place of 95 % (`benchmarks/interval_coverage.py`).

    Args:
        values: One or more of each cluster.
        clusters: The cluster of each value.
        bounds: Least and largest possible mean, at which the interval is cut. They are all that is
            known of it from one cluster; without bounds, low and high are then the value itself.

    >>> found = mean([0.1, 0.2, 0.3], ["ada", "bob", "cleo"])
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), found.n
    (0.2, -0.048, 0.448, 3)
    """
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        groups[cluster].append(value)
    n, middle = len(groups), float(np.mean(values))
    if n == 1:
        low, high = (bound if math.isfinite(bound) else middle for bound in bounds)
        return Estimate(middle, low, high, 1, ALONE)
    gaps = np.array([sum(group) - len(group) * middle for group in groups.values()])
    error = n / len(values) * float(gaps.std(ddof=1)) / n**0.5
    half = float(stdtrit(n - 1, 0.975)) * error
    low, high = max(bounds[0], middle - half), min(bounds[1], middle + half)
    return Estimate(middle, low, high, n, "Student t over people")


def paired_rate_difference(
    first: Sequence[bool],
    second: Sequence[bool],
    clusters: Sequence[Hashable],
    *,
    confidence: float = 0.95,
) -> Estimate:
    """Difference of two paired rates with the exact interval that goes with McNemar's test.

    A bootstrap of 8 of 8 against 0 of 8 has no width at all, which is not what eight targets say.
    Here the pairs on which only one of the two succeeded are a coin that a Clopper–Pearson interval
    judges, and their share of all pairs has an interval of its own; the two are combined to the
    safe side. Where there are none, the interval is what that many pairs without a hit still
    allow. Targets of one person are not independent: counts are scaled to the number of people, as
    if they were wholly dependent.
    """
    n, people = len(first), len(set(clusters))
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    split = only_first + only_second
    if split:
        shrink = people / n
        coin = clopper_pearson(only_first * shrink, split * shrink, confidence=confidence)
        share = clopper_pearson(split * shrink, people, confidence=confidence)
        low, high = (_scale(2 * bound - 1, share, k) for k, bound in enumerate(coin))
    else:
        high = clopper_pearson(0, people, confidence=confidence)[1]
        low = -high
    value = (only_first - only_second) / n
    return Estimate(value, low, high, n, "exact, paired (McNemar)")


def paired_p_value(
    first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable]
) -> float:
    """One-sided exact McNemar test that the first rate is higher.

    Counts are scaled to the number of people, as in `paired_rate_difference`, and rounded to the
    side that finds less.
    """
    n, people = max(1, len(first)), len(set(clusters))
    only_first = sum(a and not b for a, b in zip(first, second, strict=True)) * people // n
    only_second = -(-sum(b and not a for a, b in zip(first, second, strict=True)) * people // n)
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest  # noqa: PLC0415 - slow

    test = binomtest(only_first, only_first + only_second, alternative="greater")
    return float(test.pvalue)


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Adjusted p-values, family-wise (Holm 1979).

    Args:
        p_values: Of all hypotheses of the family.
        weights: Shares of the error level, above 0; equal ones if not given. What a rejected
            hypothesis held goes to the others.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    >>> [round(p, 4) for p in holm([0.03, 0.02], [0.8, 0.2])]
    [0.0375, 0.0375]
    """
    shares = weights or [1.0] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda k: p_values[k] / shares[k])
    # What is left at each rank, in one pass: a study asks for this once a row.
    left_of = [*accumulate(shares[k] for k in reversed(order))][::-1]
    adjustment, running = [0.0] * len(p_values), 0.0
    for left, index in zip(left_of, order, strict=True):
        running = max(running, min(1.0, left * p_values[index] / shares[index]))
        adjustment[index] = running
    return adjustment


def targets_needed(limit: float, *, confidence: float = 0.95) -> int:
    """Targets without a single hit after which the rate's upper bound falls to `limit`.

    >>> targets_needed(0.05)
    72
    """
    n = 1
    while clopper_pearson(0, n, confidence=confidence)[1] > limit:
        n += 1
    return n


def _scale(advantage: float, share: tuple[float, float], end: int) -> float:
    """An end (0 low, 1 high) of advantage × share, for the share that makes it the more extreme."""
    products = [advantage * bound for bound in share]
    return max(products) if end else min(products)
