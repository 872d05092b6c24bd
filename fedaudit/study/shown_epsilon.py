"""From canaries' scores to the ε that they show, in three bounds of different assumptions."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from fedaudit.core.errors import UsageError
from fedaudit.stats.epsilon_bounds import require_small_delta
from fedaudit.stats.gaussian_dp import MOST, mu_of_epsilon
from fedaudit.stats.one_run_bounds import (
    epsilon_in_one_run,
    f_dp_epsilon_in_one_run,
    gaussian_epsilon_of_scores,
    guesses_needed,
    standard_difference,
)

STRATEGIES = (
    *((share, 2) for share in (1.0, 0.5, 0.2, 0.1, 0.05)),
    *((share, 1) for share in (0.2, 0.1, 0.05, 0.02)),
)
"""Share of the canaries that are guessed, and sides: of two, the lowest scores are guessed as out,
as many as the highest are as in; of one, the highest alone, as where few images are unprotected."""
LEAST = 20
"""Canaries below which no bound can lie above 0.5, whatever is guessed."""


@dataclass(frozen=True)
class ShownEpsilon:
    """Lower bounds of ε, each with `confidence`.

    Attributes:
        any_mechanism: Whatever the mechanism is (Steinke et al. 2023).
        f_dp: If it is μ-GDP for some μ (Mahloujifar et al. 2025).
        gaussian: Model-based: if Gaussian noise hides each canary by itself.
        canaries, guesses, right: Of the first two, which choose how many to guess on one half of
            the canaries and count on the other.
        apart: Of the third, from all canaries: how many of their own standard deviations the mean
            scores of those in and of those out lie apart; at most `MOST`.
        delta, confidence: At which they are stated.
    """

    any_mechanism: float
    f_dp: float
    gaussian: float
    canaries: int
    guesses: int
    right: int
    apart: float
    delta: float
    confidence: float = 0.95


def require_enough(
    canaries: int, claimed: float, delta: float, units: int, unit: str = "image"
) -> str:
    """Refuse an audit that could say nothing, before it runs; else what it can say at most.

    Args:
        canaries: Of the audit.
        claimed: ε of the claim; infinite where there is none.
        delta: Of the claim.
        units: Of the client with the fewest (or of the federation, of clients), canaries aside.
        unit: What a canary is.

    Raises:
        UsageError: Too few canaries for any statement, or δ above 1/n.
    """
    require_small_delta(delta, units, unit)
    half_of_canaries = canaries // 2
    half = claimed / 2 if claimed < float("inf") else 1.0
    guesses = guesses_needed(min(half, 4.0), delta=delta)
    minimum = LEAST if guesses is None else max(LEAST, 2 * guesses)
    if canaries < LEAST:
        raise UsageError(
            f"{canaries} canaries are too few for any statement: with all guesses right they show "
            f"less than ε = 0.5. Take {minimum:,} or more, of which half choose the threshold."
        )
    most = epsilon_in_one_run(half_of_canaries, half_of_canaries, half_of_canaries, delta=delta)
    sentence = (
        f"{canaries:,} canaries can show ε = {most:.2f} at most whatever the mechanism, with all "
        f"{half_of_canaries:,} guesses right"
    )
    if claimed == float("inf"):
        return sentence
    if most < claimed:
        above = guesses_needed(claimed, delta=delta)
        more = "more than δ allows" if above is None else f"{2 * above:,} or more"
        sentence += f" (to contradict ε = {claimed:.3g} it takes {more})"
    usual = expected_gaussian(canaries, claimed, delta)
    return (
        f"{sentence}; if ε = {claimed:.3g} is true, the Gaussian model is to show about {usual:.2f}"
    )


def shown_epsilon(
    scores: Tensor, inside: Tensor, *, delta: float, confidence: float = 0.95
) -> ShownEpsilon:
    """What the scores of canaries show.

    How many canaries to guess is chosen on every other canary, and counted on the rest. The
    Gaussian model compares the scores' means. That takes no choice, so that all canaries count.

    Args:
        scores: `[m]`, higher where a canary is likelier to be in.
        inside: `[m]`, the coins.
        delta: At which ε is stated.
        confidence: Of each bound.
    """
    choosing, counting = slice(0, None, 2), slice(1, None, 2)

    def shown(part: slice, strategy: tuple[float, int]) -> tuple[int, int, int]:
        return (len(scores[part]), *_guess(scores[part], inside[part], *strategy))

    best = max(STRATEGIES, key=lambda s: epsilon_in_one_run(*shown(choosing, s), delta=delta))
    counts = shown(counting, best)
    tight = max(STRATEGIES, key=lambda s: f_dp_epsilon_in_one_run(*shown(choosing, s), delta=delta))
    sides = scores[inside].double().numpy(), scores[~inside].double().numpy()
    return ShownEpsilon(
        any_mechanism=epsilon_in_one_run(*counts, delta=delta, confidence=confidence),
        f_dp=f_dp_epsilon_in_one_run(*shown(counting, tight), delta=delta, confidence=confidence),
        gaussian=gaussian_epsilon_of_scores(*sides, delta=delta, confidence=confidence),
        canaries=len(scores),
        guesses=counts[1],
        right=counts[2],
        apart=min(standard_difference(*sides), MOST),
        delta=delta,
        confidence=confidence,
    )


def expected_gaussian(canaries: int, epsilon: float, delta: float) -> float:
    """The Gaussian bound that a correct mechanism of this ε is expected to end in."""
    noise = ndtri((np.arange(canaries // 2) + 0.5) / (canaries // 2))
    moved = noise + min(mu_of_epsilon(epsilon, delta), MOST)
    return gaussian_epsilon_of_scores(moved, noise, delta=delta)


def _guess(scores: Tensor, inside: Tensor, share: float, sides: int) -> tuple[int, int]:
    """Guesses, and right ones."""
    each = max(1, int(len(scores) * share / sides))
    order = torch.argsort(scores)
    right = int(inside[order[-each:]].sum())
    if sides == 2:
        right += int((~inside[order[:each]]).sum())
    return sides * each, right
