"""Lower bounds of ε from one run with many canaries, each of which is in by a coin of its own.

An attacker guesses the coins of as many canaries as it likes, and abstains from the others. Three
bounds turn what it got right into ε, from the one that holds for every mechanism to the one that
assumes most. Which canaries are guessed must not be decided by the coins that are counted.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtrc, expit, ndtr, ndtri

from fedaudit.stats.gaussian_dp import MOST, epsilon_of_mu
from fedaudit.stats.intervals import clopper_pearson

TOLERANCE = 1e-9
Rejects = Callable[[float], float]
"""Above 0 where what was seen contradicts this ε (or μ)."""


def one_run_p_value(
    canaries: int, guesses: int, right: int, epsilon: float, delta: float = 0.0
) -> float:
    """How likely (ε, δ)-DP makes so many right guesses, at most.

    Steinke, Nasr & Jagielski (NeurIPS 2023, arXiv 2305.08846, theorem 5.2 with the correction for
    δ of its appendix): β = P[Bin(r, 1/(1 + e^−ε)) ≥ v], and of δ at most 2mδ·max_i
    (P[Bin ≥ v − i] − β)/i is added.
    """
    chance = float(expit(epsilon))

    def at_least(count: np.ndarray | int) -> np.ndarray:
        below = np.asarray(count, dtype=float) - 1
        tail: np.ndarray = np.where(below < 0, 1.0, bdtrc(np.maximum(below, 0), guesses, chance))
        return tail

    beta = float(at_least(right))
    if delta == 0 or right == 0:
        return beta
    # Below ten standard deviations under the mean all tails are 1, and more steps only divide.
    spread = 10 * math.sqrt(guesses * chance * (1 - chance)) + 10
    steps = np.arange(1, min(right, max(0, right - guesses * chance) + spread) + 1)
    alpha = float(np.max((at_least(right - steps) - beta) / steps, initial=0.0))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def epsilon_in_one_run(
    canaries: int, guesses: int, right: int, *, delta: float = 0.0, confidence: float = 0.95
) -> float:
    """ε that one run shows at least, whatever the mechanism; 0 where it shows nothing.

    Args:
        canaries: All whose coin was tossed, guessed or not; m.
        guesses: Canaries whose coin was guessed; r ≤ m.
        right: Guesses that were right; v ≤ r.
        delta: At which ε is stated, in [0, 1).
        confidence: Of the bound.

    >>> round(epsilon_in_one_run(1000, 600, 600, delta=1e-5), 4)
    5.2704
    """

    def rejects(epsilon: float) -> float:
        return 1 - confidence - one_run_p_value(canaries, guesses, right, epsilon, delta)

    return _largest(rejects, 700.0)


def f_dp_epsilon_in_one_run(
    canaries: int, guesses: int, right: int, *, delta: float, confidence: float = 0.95
) -> float:
    """The same where the mechanism is known to be μ-GDP for some μ, as Gaussian noise is.

    Mahloujifar, Melis & Chaudhuri (2025, arXiv 2410.22235, algorithm 3) with the trade-off function
    of N(0, 1) and N(μ, 1): tighter, as one rate then speaks for all others. Canaries may influence
    each other in any way. Arguments as `epsilon_in_one_run`; δ > 0.

    >>> round(f_dp_epsilon_in_one_run(1000, 600, 600, delta=1e-5), 4)
    10.5149
    """

    def rejects(mu: float) -> float:
        tail = (1 - confidence) / canaries
        r, h = tail * right, tail * (guesses - right)
        for i in range(right - 1, -1, -1):
            higher = max(h, float(ndtr(ndtri(r) - mu)))
            if higher == h or i == guesses:  # nothing changes from here on
                break
            r, h = min(1.0, r + i / (guesses - i) * (higher - h)), higher
        return r + h - guesses / canaries

    return epsilon_of_mu(_largest(rejects, MOST), delta)


def gaussian_epsilon_in_one_run(
    guesses: int, right: int, *, delta: float, confidence: float = 0.95
) -> float:
    """ε of Gaussian noise through which each canary is seen by itself, if all are guessed.

    Model-based, and to be labeled so. An attacker then guesses right with probability Φ(μ/2), each
    canary by itself, and the exact lower end of that rate gives μ. It is the case without
    abstention of the order statistics of Xiang et al. (2025, arXiv 2509.08704), with the exact tail
    in place of Chernoff's. Canaries must not influence each other: orthogonal ones do not.

    >>> round(gaussian_epsilon_in_one_run(1000, 800, delta=1e-5), 4)
    7.2276
    """
    low = clopper_pearson(right, guesses, confidence=2 * confidence - 1)[0]
    mu = 2 * float(ndtri(low))
    return epsilon_of_mu(mu, delta) if mu > 0 else 0.0


def guesses_needed(epsilon: float, *, delta: float = 0.0, confidence: float = 0.95) -> int | None:
    """Fewest guesses that, all of them right, show more than `epsilon` whatever the mechanism.

    None where no number does: 2mδ outgrows 1 − confidence first.

    >>> guesses_needed(1.0), guesses_needed(8.0)
    (10, 8932)
    """

    def enough(count: int) -> bool:
        return one_run_p_value(count, count, count, epsilon, delta) < 1 - confidence

    low = max(1, math.floor(math.log(1 - confidence) / math.log(float(expit(epsilon)))))
    high = low
    while not enough(high):  # without δ the next one is enough
        low, high = high, high + max(1, high // 64)
        if high > 4 * (low + 64) or 2 * high * delta > 1:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _largest(rejects: Rejects, most: float) -> float:
    """The largest value that is rejected; 0 where none is."""
    if rejects(0.0) <= 0:
        return 0.0
    high = 1.0
    while rejects(high) > 0:
        high *= 2
        if high > most:
            return most
    return float(brentq(rejects, 0.0, high, xtol=TOLERANCE))
