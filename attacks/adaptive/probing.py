"""What an attacker makes of the defenses in use, by trying each on a gradient of no client.

Nothing here goes by a defense's name. The attacker can run the defense, and sees what happens to a
gradient of its own (`transform_behavior`), so that a package's defense is met like ours. What takes
more than that is special: each such kind of defense has a `DefenseAdaptation`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.adaptation import Adaptation
from fedaudit.attacks.adaptive.augmentation_disambiguation import copies
from fedaudit.attacks.adaptive.changed_photos import copies_of, mixes
from fedaudit.attacks.adaptive.concealed_separation import concealment
from fedaudit.attacks.adaptive.defense_adaptation import DefenseAdaptation, HandsInAdaptation
from fedaudit.attacks.adaptive.defense_replay import installed_defense, replay_of
from fedaudit.attacks.adaptive.estimation import estimate
from fedaudit.attacks.adaptive.mixtures import MASKED, MIXTURES, as_mixture, separation
from fedaudit.attacks.adaptive.orthogonalized import ORTHOGONALIZED
from fedaudit.attacks.adaptive.transform_behavior import (
    behavior,
    drawing,
    drops_columns,
    followed,
    is_even,
    noise_by_parameter,
)
from fedaudit.attacks.evidence.round_averaging import rounds_of, weights_of
from fedaudit.attacks.training.schedule import scale_of
from fedaudit.core.errors import FedauditError
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.shared import Update
from fedaudit.defenses.gradient_transforms import Conceals, GradientTransform, ImageTransform

PROBE = 7
"""Seed of the gradient that transforms are tried on; with their own it would be what they draw."""
MODELED_AGGREGATES = frozenset({"secure aggregation", "secure_aggregation"})
"""No transforms of a gradient: an aggregate is matched by all clients' images."""


def adapt_to(seen: Observation) -> Adaptation:
    """The adaptation to what is known of the defense in use, or else to what the update shows."""
    update = seen.update
    if update is None or not update.tensors:
        return Adaptation()
    rounds = rounds_of(seen)
    facts = estimate(seen) if seen.defense is None else seen.defense
    if all(one.name == "none" for one in facts):
        return Adaptation(rounds=rounds[:1])
    probe = _probe(update.tensors)
    count, shape = seen.batch_size or 1, seen.image_shape
    known = reduce(
        lambda so_far, one: _with_defense(so_far, one, count, probe, shape),
        facts,
        Adaptation(units=_units(seen, update), rounds=rounds),
    )
    tensors = {name: update.tensors[name] for name in probe}
    noises, noise = noise_by_parameter(known.rounding, known.noise, seen, tensors)
    weights: tuple[float, ...] = ()
    left = len(rounds) ** -0.5 if known.repeats else 1.0
    if noise and known.repeats and not known.sparse:
        weights, left = weights_of(rounds)
    distorts = known.followed or known.sparse or known.bent or noise or known.scaled or known.each
    if not known.directional and (distorts or count > 1):
        # Lengths that were changed again say nothing, nor do those of a sum of several gradients.
        special = tuple(one for one in known.special if one.directional)
        misses = (*known.missed, *(one.name for one in facts))
        known = replace(known, special=special, missed=misses)
    if known.images and shape and (number := copies_of(known.images, shape)) > 1:
        known = known.with_special(copies(known.images, number))
    return replace(
        known,
        noise=noise * left,
        noises={name: std * left for name, std in noises.items()},
        weights=weights,
    )


def _with_defense(
    known: Adaptation,
    facts: DefenseFacts,
    count: int,
    probe: dict[str, Tensor],
    shape: tuple[int, int, int] | None,
) -> Adaptation:
    """The adaptation to one defense more."""
    name = facts.name
    if name in MODELED_AGGREGATES:
        return known
    try:
        if special := _handed_in(installed_defense(facts), count):
            return known.with_special(special)
        replay = replay_of((facts,), count)
    except (FedauditError, TypeError, ValueError):  # settings may be known in part only
        return known.missing(name)
    known = _with_images(known, replay.images, name, count, shape)
    mean = replay.mean
    if replay.each and count == 1:
        mean = (*replay.each, *mean)
    elif any(behavior(transform, probe)[0] != "kept" for transform in replay.each):
        known = known.missing(name)
    else:  # clipping of single images weighs those of a batch against each other
        known = replace(known, each=(*known.each, *replay.each))
    # What acts on an image's gradient acts before the learning rate.
    length = abs(known.units) if replay.each else 1.0
    for transform in mean:
        known = _with_transform(known, transform, name, probe, length)
    return known


def _handed_in(defense: object, count: int) -> DefenseAdaptation | None:
    """What a defense says itself of how it is met; None where attackers are to try it."""
    if isinstance(defense, HandsInAdaptation):
        return defense.adaptation(count)
    if isinstance(defense, Conceals) and defense.copies == count:
        return concealment(defense)
    return None


def _with_images(
    known: Adaptation,
    transforms: tuple[ImageTransform, ...],
    name: str,
    count: int,
    shape: tuple[int, int, int] | None,
) -> Adaptation:
    """The adaptation to one defense more, which does `transforms` to photos."""
    mixture = as_mixture(transforms, shape) if transforms and shape and count == 1 else None
    if mixture:
        earlier = {one.name for one in known.special} & MIXTURES
        if earlier and (mixture.masked or MASKED in earlier):  # mixtures of masked images
            known = known.missing(name)
        others = (one for one in known.special if one.name not in MIXTURES)
        known = replace(known, special=(*others, separation(mixture)))
    elif transforms and (shape is None or mixes(transforms, shape)):
        known = known.missing(name)
    else:
        known = replace(known, images=(*transforms, *known.images))
    if not known.repeats and known.images:  # mixtures of changed photos, or changed mixtures
        known = known.missing(name)
    return known


def _with_transform(
    known: Adaptation,
    transform: GradientTransform,
    name: str,
    probe: dict[str, Tensor],
    length: float,
) -> Adaptation:
    """The adaptation to one more transform of mean gradients."""
    kind, noise = behavior(transform, probe)
    match kind:
        case "lost":
            known = known.missing(name)
        case "sparse":
            columns = drops_columns(transform, probe) and (known.columns or not known.sparse)
            known = replace(known, sparse=True, columns=columns)
        case "noise" if not is_even(transform, probe):
            known = replace(known, rounding=(*known.rounding, (transform, noise * length)))
        case "noise":
            known = replace(known, noise=(known.noise**2 + (noise * length) ** 2) ** 0.5)
        case "kept":
            known = replace(known, scaled=(*known.scaled, transform))
        case "orthogonalized":
            known = known.with_special(ORTHOGONALIZED)
        case "bent":
            bent = transform(probe, drawing(0))
            signs = all(bool((bent[n] == v.sign()).all()) for n, v in probe.items())
            known = replace(known, bent=True, signs=signs)
        case _:
            known = replace(known, followed=(*known.followed, followed(transform, probe)))
    return known


def _probe(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A gradient of no client, with the update's shapes and the lengths of its layers."""
    generator = drawing(PROBE)
    probe = {}
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.numel():
            continue
        size = float(value.norm()) / max(1, int((value != 0).sum())) ** 0.5
        direction = torch.randn(value.shape, generator=generator).to(value)
        probe[name] = (direction * (size or 1e-12))[None]
    return probe


def _units(seen: Observation, update: Update) -> float:
    if update.kind == "gradient" or seen.training is None:
        return 1.0
    return -scale_of(seen.training)
