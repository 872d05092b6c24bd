"""Whether an attack took the defense in use into account, to be said beside its result."""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.attacks.adaptive.adaptation import Adaptation
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.reconstruction import Adaptive, Reconstruction
from fedaudit.core.scenario import Adapt


def assume(seen: Observation, adapt: Adapt) -> Observation:
    """What an attacker takes for true of the defense in use.

    "known": all that the threat model grants. "estimated": nobody tells; the numbers of the update
    must show it. "no": there is none.
    """
    if adapt == "estimated":
        return replace(seen, defense=None)
    return replace(seen, defense=(DefenseFacts("none", {}),)) if adapt == "no" else seen


def as_assumed(
    result: Reconstruction,
    seen: Observation,
    adapt: Adapt,
    used: Sequence[DefenseFacts] | None = None,
) -> Reconstruction:
    """The result `made` of an attack on `assume(seen, adapt)`, said to be blind where it was.

    `used` are the defenses in use, of which the attack may not have been told; None for those that
    `seen` tells of. Where that tells of none either, as in a recording, nobody can say what stayed
    unseen.
    """
    used = seen.defense if used is None else used
    if adapt == "no":
        has_defense = used is None or {facts.name for facts in used} - {"none"}
        return replace(result, adaptive="no") if has_defense else result
    assumption = assume(seen, adapt)
    unaware = assumption.defense is None and result.adaptive == "estimated"
    if unaware and used and _is_overlooked(assumption, used):
        return replace(result, adaptive="no")
    return result


def _is_overlooked(seen: Observation, defenses: Sequence[DefenseFacts]) -> bool:
    """Whether nothing was read off the update of a defense that must be taken into account."""
    read = adapt_to(seen).kinds
    needs = (adapt_to(replace(seen, defense=(facts,))).kinds for facts in defenses)
    return any(one and not one & read for one in needs)


def distance_for(adaptation: Adaptation, distance: str) -> str:
    """The distance between gradients that suits the defense in use.

    Where entries were pruned, a cosine over those that were sent; where signs were sent, a distance
    to signs. The published choice of an attack for another distance stays, but where a special
    defense leaves only one that applies.
    """
    only = [one.distance for one in adaptation.special if one.distance]
    if only:
        return only[0]
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
    handled: bool = False,
) -> Adaptive:
    """The word that goes with a result, as far as the attack can tell.

    "estimated": what the update showed was taken into account, or it showed nothing to be taken
    into account. Whether a defense in use stayed unseen, `as_assumed` says, which knows it.

    Args:
        seen: What the server saw; says which defenses are in use.
        exact: The attack models none of them: it only stands where they leave the gradient's
            direction as it is, or keep a part of it on the device.
        matched: The attack compares gradients of dummy images, one by one, and so models what
            defenses do to photos before they train, to a single image's gradient, and to its angle.
        weighed: It takes the images of a batch apart, whatever each of them weighs in the update.
        handled: It does all that the special defenses in use ask for (`DefenseAdaptation.handled`).
    """
    defenses = seen.defense
    if defenses is not None and not {facts.name for facts in defenses} - {"none"}:
        return "none needed"
    if defenses is None and seen.update is None:
        return "no"  # there is nothing that an estimate could be made from
    adaptation = adapt_to(seen)
    if adaptation.missed or (exact and not adaptation.exact):
        return "no"
    follows = adaptation.images or (adaptation.each and not weighed)
    if (follows and not matched) or (adaptation.special and not handled):
        return "no"
    return (
        "estimated" if defenses is None or any(facts.estimated for facts in defenses) else "known"
    )
