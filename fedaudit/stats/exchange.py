"""The paired exchange test: does an attack reveal more than its own prior-only control?

Places of a federation whose label, model or prior says who stands there say so to the control as
well: the same attack, at the same place, on the update of an invented person. If the real update
adds nothing to that, attack and control are two draws of one kind and might change sides at any
place. This holds for any prior, any model and any judge, also where they tell who it was.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from fedaudit.stats.drawn_p_values import DRAWN, drawn_p_value

EXACT = 12
"""Up to so many units all exchanges are tried; of more, chunks of `DRAWN` at random."""
FEW = 9
"""Up to so many units gains are counted, of more they are summed. Four gains in four are chance in
1 of 256 cases, and 1 of 16 exchanges gives as much; from ten units on sums find more. Chosen by
`benchmarks/update_rule.py`, on ranks that are drawn, not on faces."""


def exchange_test(gains: Sequence[float], span: float, *, chunks: int = 1) -> float:
    """One-sided p-value of "the update adds nothing to what its control says".

    Of few units: wins less losses, where more than half of `span` is a win. Two draws of one kind
    differ so far, with the first ahead, with probability ¼ at most, and a sum of such steps exceeds
    a value with at most the probability with which 2 n coins give as many heads more than n. Of
    more units: the share of all exchanges of attack and control that give at least this sum
    (Fisher 1935, §21).

    Args:
        gains: Of each independent unit, the score of the attack less that of its control.
        span: Between the lowest and the highest possible score.
        chunks: Of draws, at most, where not all exchanges are tried
            (`fedaudit.stats.drawn_p_values`).

    >>> exchange_test([0.8, 0.8, 0.8, 0.8], 0.8)
    0.00390625
    >>> exchange_test([0.8, 0.8, 0.0, -0.8], 0.8) > 0.05
    True
    """
    values, n = np.asarray(gains, float), len(gains)
    if n <= FEW:
        ahead = int((values > span / 2).sum() - (values < -span / 2).sum())
        return float(binom.sf(n + ahead - 1, 2 * n, 0.5)) if ahead > 0 else 1.0
    statistic = values.sum()
    if n <= EXACT:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float((signs @ values >= statistic - 1e-9).mean())

    def hits_in(chunk: int) -> int:
        return int((_signs(n, DRAWN, chunk) @ values >= statistic - 1e-9).sum())

    return drawn_p_value(hits_in, chunks, DRAWN)


@lru_cache(maxsize=64)
def _signs(units: int, count: int, chunk: int) -> NDArray[np.int8]:
    """Which units change sides, `[count, units]` of ±1; the same in every report."""
    sides = np.array((-1, 1), np.int8)
    return np.random.default_rng(chunk).choice(sides, (count, units))
