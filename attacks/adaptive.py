"""Whether an attack took the defense in use into account, to be said beside its result."""

from dataclasses import replace
from typing import Literal

from fedaudit.config import Adapt
from fedaudit.types import DefenseFacts, Observation, Reconstruction

HANDLED = frozenset(
    {
        *("dpsgd", "dplc", "private_projector", "local_layers"),
        *("larger_batch", "more_steps"),
        *("client_dp", "clipping", "noise", "gaussian_noise", "secure aggregation"),
    }
)
"""Defenses whose effect the matching engine models: a cosine distance is blind to clipping, of
whole updates at any batch size and of images at batch 1, and optimal in direction under Gaussian
noise; what stays on the device is solved for; an aggregate is matched by all clients' images."""
EXACT = frozenset({"dplc", "private_projector", "local_layers", "larger_batch", "more_steps"})
"""Defenses that closed forms meet: what stays on the device lies behind the layer that they read;
the numbers of images and of steps are among the facts that an attacker has of any training.
Noise they do not: a quotient or a linear system takes it for signal."""


PRUNED = frozenset({"pruning", "top_k"})
"""Defenses that send zeros in place of small entries."""


def assume(seen: Observation, adapt: Adapt) -> Observation:
    """What an attacker takes for true of the defense in use.

    Args:
        seen: What the server saw.
        adapt: "known": all that the threat model grants. "estimated": nobody tells; the numbers of
            the update must show it. "no": there is none.
    """
    if adapt == "estimated":
        return replace(seen, defense=None)
    return replace(seen, defense=(DefenseFacts("none", {}),)) if adapt == "no" else seen


def as_assumed(made: Reconstruction, seen: Observation, adapt: Adapt) -> Reconstruction:
    """The result of an attack on `assume(seen, adapt)`, said to be blind where it was."""
    defended = seen.defense is None or {facts.name for facts in seen.defense} - {"none"}
    return replace(made, adaptive="no") if adapt == "no" and defended else made


def distance_for(seen: Observation, distance: str) -> str:
    """The distance between gradients that suits the defense in use.

    Where entries were pruned, a cosine over those that were sent; the published choice of an attack
    for another distance stays.
    """
    return "masked" if distance == "cosine" and is_pruned(seen) else distance


def is_pruned(seen: Observation) -> bool:
    """Whether zeros stand in place of small entries, so that closed forms take them for numbers."""
    return bool({facts.name for facts in seen.defense or ()} & PRUNED)


def how_adaptive(
    seen: Observation, handled: frozenset[str] = HANDLED
) -> Literal["known", "estimated", "no", "none needed"]:
    """The word that goes with a result.

    Args:
        seen: What the server saw; says which defenses are in use.
        handled: Names of the defenses that the attack takes into account.
    """
    if seen.defense is None:
        # Which parameters are missing and how noisy the rest is shows in the update itself.
        return "estimated"
    names = {facts.name for facts in seen.defense} - {"none"}
    if not names:
        return "none needed"
    if not names <= handled:
        return "no"
    return "estimated" if any(facts.estimated for facts in seen.defense) else "known"
