"""Rates of outcomes that are not independent: photos of the same people, pairs that share people.

What a false match rate or a ceiling is worth is decided by the number of people that it was
measured on: 40 people make 7,800 impostor pairs, and still are 40 (ISO/IEC 19795-1:2021, 7.6).
The intervals are Clopper and Pearson's at the number of independent outcomes that would vary as
much as these do (Korn & Graubard 1998, "Confidence intervals for proportions with small expected
number of positive counts").
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from fedaudit.core.measures import Rate
from fedaudit.stats.intervals import clopper_pearson


def rate_by_person(
    outcomes: Sequence[bool], people: Sequence[Hashable], unit: str = "photos"
) -> Rate:
    """A rate over photos with the interval that their people allow; at least one photo.

    >>> alone = rate_by_person([True] * 18 + [False] * 2, range(20))
    >>> five = rate_by_person([True] * 18 + [False] * 2, [k // 4 for k in range(20)])
    >>> round(alone.low, 2), round(five.low, 2)
    (0.68, 0.38)
    """
    names = {person: k for k, person in enumerate(dict.fromkeys(people))}
    owner = [names[person] for person in people]
    hits, photos = np.bincount(owner, outcomes), np.bincount(owner)
    n, count = len(names), len(outcomes)
    value = float(hits.sum() / count)
    variance = float(((hits - value * photos) ** 2).sum()) * n / max(1, n - 1) / count**2
    return _rate(int(hits.sum()), count, n, variance, unit)


def rate_of_pairs(matches: ArrayLike, pairs: ArrayLike) -> Rate:
    """A rate over pairs of people, each of whom is in many pairs.

    Args:
        matches: `[P, P]` of each ordered pair of people, how many comparisons were hits.
        pairs: `[P, P]` how many comparisons there were; at least one in all.
    """
    hits, trials = np.asarray(matches, float), np.asarray(pairs, float)
    n = len(hits)
    # Without each person in turn, on either side (delete-one jackknife).
    without_hits = hits.sum() - hits.sum(0) - hits.sum(1) + np.diag(hits)
    without = trials.sum() - trials.sum(0) - trials.sum(1) + np.diag(trials)
    left = without_hits / np.maximum(without, 1)
    variance = (n - 1) / n * float(((left - left.mean()) ** 2).sum())
    return _rate(int(hits.sum()), int(trials.sum()), n, variance, "pairs")


def _rate(hits: int, count: int, people: int, variance: float, unit: str) -> Rate:
    value = hits / count
    independent = float(people)  # nothing varies, so that nothing tells more than one a person
    if variance > 0:
        wider = (stdtrit(max(1, count - 1), 0.975) / stdtrit(max(1, people - 1), 0.975)) ** 2
        independent = min(count, value * (1 - value) / variance * float(wider))
    return Rate(hits, count, value, *clopper_pearson(value * independent, independent), unit)
