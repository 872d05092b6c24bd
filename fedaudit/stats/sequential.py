"""Looks at a study while it runs: when they are, and what each costs of the error level.

Whoever looks several times and stops when it suits is wrong more often than each look says. Here
the error level is spent over looks that are fixed beforehand (Lan & DeMets 1983, "Discrete
sequential boundaries for clinical trials"): all looks together are wrong as rarely as one would be,
whatever makes a study stop. Tests share the level out (Bonferroni), so that nothing need be known
of how their looks hang together; intervals of a rate are repeated confidence intervals (Jennison &
Turnbull 1989) by the exact distribution of hits. `benchmarks/sequential_stopping.py` measures both.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, ndtri

PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""Of the targets, after which a study is looked at."""
LEAST = 4
"""Targets before the first look: fewer cannot demonstrate a leak."""
LAST = 0.5
"""Of the error level of a leak, what the last look has: a leak that is plain needs little."""
_GRID = 64
_REFINED = 4
"""64^-4: an interval is too wide by less than a millionth of a point."""


def looks(targets: int) -> tuple[int, ...]:
    """After how many targets each look is; the last is after all.

    >>> looks(72), looks(16), looks(3)
    ((5, 9, 18, 36, 54, 72), (4, 8, 12, 16), (3,))
    """
    counts = {math.ceil(part * targets) for part in PARTS}
    return tuple(sorted({n for n in counts if n >= LEAST} | {targets}))


def shares(number: int) -> tuple[float, ...]:
    """What each of so many looks has of the error level of a leak; 1 in all.

    >>> shares(1), shares(3)
    ((1.0,), (0.25, 0.25, 0.5))
    """
    return (*[(1 - LAST) / (number - 1)] * (number - 1), LAST) if number > 1 else (1.0,)


def repeated_interval(
    hits: int, counts: Sequence[int], of: Sequence[int], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Two-sided interval of a rate that holds at all looks at once.

    The lower end, which shows a leak, spends as `shares` says; the upper end, which shows none, as
    O'Brien & Fleming: next to nothing early, so that the last look costs next to nothing.

    Args:
        hits: Until now.
        counts: Independent units at each look until now.
        of: After how many targets the looks are, the later ones too.
        confidence: Of all looks together.

    >>> low, high = repeated_interval(0, [5, 9, 18, 36, 54, 72], looks(72))
    >>> low, round(high, 3)
    (0.0, 0.05)
    """
    tail = (1 - confidence) / 2
    parts = np.array(of[: len(counts)]) / of[-1]
    above = 2 * (1 - ndtr(ndtri(1 - tail / 2) / np.sqrt(parts)))
    below = tail * np.cumsum(shares(len(of)))[: len(counts)]
    units = tuple(counts)
    low = 1 - _upper(units[-1] - hits, units, tuple(below.tolist()))
    return low, _upper(hits, units, tuple(above.tolist()))


@lru_cache(maxsize=4096)
def _upper(hits: int, counts: tuple[int, ...], levels: tuple[float, ...]) -> float:
    """The smallest rate above which so few hits are excluded at every rate."""
    low, high = hits / counts[-1], 1.0
    for _ in range(_REFINED):
        grid = np.linspace(low, high, _GRID + 1)
        candidates = np.flatnonzero(_most_excluded(grid, counts, levels) < hits)
        last = int(candidates[-1]) if len(candidates) else 0
        low, high = float(grid[last]), float(grid[min(last + 1, _GRID)])
    return high


def _most_excluded(
    rates: NDArray[np.float64], counts: tuple[int, ...], levels: tuple[float, ...]
) -> NDArray[np.int64]:
    """The most hits at the last look by which each rate is excluded; -1 where none are so few.

    At every look as many as the level spent until then allows, of what was not excluded before; so
    what an early look cannot use is left to the later ones.
    """
    alive = np.ones((len(rates), 1))
    excluded_mass, before = np.zeros(len(rates)), 0
    bound = np.full(len(rates), -1)
    for n, level in zip(counts, levels, strict=True):
        alive = _after(alive, rates, n - before)
        cumulative = np.cumsum(alive, axis=1)
        bound = (cumulative <= (level - excluded_mass)[:, None] + 1e-12).sum(axis=1) - 1
        out = np.arange(n + 1)[None, :] <= bound[:, None]
        excluded_mass += np.where(out, alive, 0).sum(axis=1)
        alive, before = np.where(out, 0, alive), n
    return bound


def _after(
    alive: NDArray[np.float64], rates: NDArray[np.float64], more: int
) -> NDArray[np.float64]:
    """Probabilities of hits after so many more units."""
    k = np.arange(more + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = gammaln(more + 1) - gammaln(k + 1) - gammaln(more - k + 1)
        logs = logs + np.where(k, k * np.log(rates)[:, None], 0)
        logs += np.where(more - k, (more - k) * np.log1p(-rates)[:, None], 0)
    step, size = np.exp(logs), alive.shape[1]
    after = np.zeros((len(rates), size + more))
    for j in range(more + 1):
        after[:, j : j + size] += alive * step[:, j : j + 1]
    return after
