"""Lower bounds of ε from one run with many canaries, each of which is in by a coin of its own.

An attacker guesses the coins of as many canaries as it likes, and abstains from the others. Three
bounds turn what it got right into ε, from the one that holds for every mechanism to the one that
assumes most. Which canaries are guessed must not be decided by the coins that are counted.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtrc, expit, nctdtr, ndtr, ndtri

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


def gaussian_epsilon_of_scores(
    inside: np.ndarray, outside: np.ndarray, *, delta: float, confidence: float = 0.95
) -> float:
    """The same from how far the scores lie apart, which says more than on which side they lie.

    Model-based, and to be labeled so: scores of canaries that are out are noise, and those of the
    others the same noise moved by at most μ of its standard deviations. Student's t of the two
    means then has a noncentral distribution that grows with μ, and its exact quantile gives the
    bound: under this model the uniformly most powerful test of those that neither shift nor scale
    changes (Lehmann & Romano 2005, section 6.4). Sides alone waste a third of the canaries
    (efficiency 2/π). Never more than so many right guesses could show.

    Args:
        inside: Scores of canaries that took part.
        outside: Scores of the others.
        delta: At which ε is stated, in (0, 1).
        confidence: Of the bound.

    >>> noise = ndtri((np.arange(500) + 0.5) / 500)
    >>> round(gaussian_epsilon_of_scores(noise + 1.666, noise, delta=1e-5), 2)
    7.31
    """
    count, others = len(inside), len(outside)
    apart = standard_difference(inside, outside)
    if apart <= 0 or min(count, others) < 2:
        return 0.0
    whole = count + others
    most = gaussian_epsilon_in_one_run(whole, whole, delta=delta, confidence=confidence)
    if math.isinf(apart):
        return most
    mu = least_shift(apart, count, others, confidence)
    return min(most, epsilon_of_mu(mu, delta)) if mu > 0 else 0.0


def standard_difference(inside: np.ndarray, outside: np.ndarray) -> float:
    """Difference of two samples' means over their common standard deviation; 0 of no samples.

    >>> round(standard_difference(np.array([3.0, 5.0]), np.array([0.0, 2.0])), 4)
    2.1213
    """
    if not len(inside) or not len(outside):
        return 0.0
    apart = float(inside.mean() - outside.mean())
    squares = sum(float(np.square(part - part.mean()).sum()) for part in (inside, outside))
    free = len(inside) + len(outside) - 2
    if squares == 0 or free < 1:
        return math.copysign(math.inf, apart) if apart else 0.0
    return apart / math.sqrt(squares / free)


def least_shift(apart: float, count: int, others: int, confidence: float) -> float:
    """Lower end of μ where the means of two samples lie so many standard deviations apart."""
    root = math.sqrt(count * others / (count + others))

    def rejects(mu: float) -> float:
        return float(nctdtr(count + others - 2, mu * root, apart * root)) - confidence

    if rejects(0.0) <= 0:
        return 0.0
    return float(brentq(rejects, 0.0, apart, xtol=TOLERANCE))  # at `apart` about one half


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
