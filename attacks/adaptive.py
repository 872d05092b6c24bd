"""Whether an attack took the defense in use into account, to be said beside its result."""

from dataclasses import replace
from typing import Literal

from fedaudit.attacks.adapting import Adaptation, adapt_to
from fedaudit.config import Adapt
from fedaudit.types import DefenseFacts, Observation, Reconstruction


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


def distance_for(adaptation: Adaptation, distance: str) -> str:
    """The distance between gradients that suits the defense in use.

    Where entries were pruned, a cosine over those that were sent; where signs were sent, a distance
    to signs. The published choice of an attack for another distance stays, but where gradients were
    turned away, to which no other distance applies.
    """
    if adaptation.turned:
        return "turned"
    if distance != "cosine":
        return distance
    if adaptation.signs:
        return "signs"
    return "masked" if adaptation.sparse else distance


def how_adaptive(
    seen: Observation,
    *,
    exact: bool = False,
    matched: bool = False,
    weighed: bool = False,
    company: bool = False,
    mixed: bool = False,
) -> Literal["known", "estimated", "no", "none needed"]:
    """The word that goes with a result.

    Args:
        seen: What the server saw; says which defenses are in use.
        exact: The attack models none of them: it only stands where they leave the gradient's
            direction as it is, or keep a part of it on the device.
        matched: The attack compares gradients of trial images, one by one, and so models what
            defenses do to photos before they train, to a single image's gradient, and to its angle.
        weighed: It takes the images of a batch apart, whatever each of them weighs in the update.
        company: It has told the photo apart from the images that a defense put beside it.
        mixed: It knows the coefficients of a mixture of photos, and answers with one of them.
    """
    if seen.defense is None:
        # Which parameters are missing and how noisy the rest is shows in the update itself.
        return "estimated"
    if not {facts.name for facts in seen.defense} - {"none"}:
        return "none needed"
    adaptation = adapt_to(seen)
    if adaptation.missed or (exact and not adaptation.exact):
        return "no"
    alone = adaptation.each and not weighed
    followed = adaptation.images or alone or adaptation.turned
    if (followed and not matched) or (adaptation.company and not company):
        return "no"
    if adaptation.mixed and not mixed:
        return "no"
    return "estimated" if any(facts.estimated for facts in seen.defense) else "known"
