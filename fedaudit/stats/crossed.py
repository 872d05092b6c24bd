"""Means over people and training runs together: both are random, and every pair was measured."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from fedaudit.core.measures import Estimate


def crossed_mean(
    values: Sequence[Sequence[float]], *, low: float = 0.0, high: float = 1.0
) -> Estimate:
    """Mean of a table runs × people, with an interval over other people *and* other runs.

    The variance of a mean in a two-way random-effects layout is
    (MS_people + MS_runs − MS_rest) / n. MS_rest is left out, so that the interval errs to the wide
    side, as the pigeonhole bootstrap does (Owen 2007). Degrees of freedom are Satterthwaite's
    (1946). With one run the interval is Student's over people, and says nothing about another run;
    its `method` says so.

    Args:
        values: `[runs][people]`, at least two people.
        low: Least possible value, at which the interval is cut.
        high: Largest possible value.

    Returns:
        An estimate whose n is the number of people.

    >>> crossed_mean([[0.7, 0.8, 0.9], [0.7, 0.8, 0.9]]).value
    0.8
    """
    table = np.asarray(values, dtype=float)
    runs, people = table.shape
    mean = float(table.mean())
    squares = [runs * float(table.mean(0).var(ddof=1))]
    degrees = [people - 1]
    if runs > 1:
        squares.append(people * float(table.mean(1).var(ddof=1)))
        degrees.append(runs - 1)
    total = sum(squares)
    half = 0.0
    if total > 0:
        freedom = total**2 / sum(s**2 / d for s, d in zip(squares, degrees, strict=True))
        half = float(stdtrit(freedom, 0.975)) * (total / table.size) ** 0.5
    method = f"t over people and {runs} trainings" if runs > 1 else "t over people, one training"
    return Estimate(round(mean, 12), max(low, mean - half), min(high, mean + half), people, method)
