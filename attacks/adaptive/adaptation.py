"""What an attacker makes of the defenses in use: which transforms to follow, which to see through.

Nothing here goes by a defense's name. The attacker can run the defense, so it tries it on a
gradient of no client and sees what happens: the direction stays (clipping: a cosine does not mind);
entries go missing and the others stay (pruning: those that were sent are compared); every draw is
off in another direction but right on average (noise, unbiased quantization: the mean is followed,
which is the gradient itself, and never a draw that the client did not make); all entries are bent
alike (signs), so that the direction is about right and no equation holds; every parameter is turned
away at right angles and keeps its length (CENSOR: lengths and right angles are what is matched); or
something else is done that dummy gradients must go through as well. So a package's defense is met
like ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.changed_photos import mixes
from fedaudit.attacks.adaptive.defense_replay import company_of, replay_of
from fedaudit.attacks.adaptive.estimation import estimate
from fedaudit.attacks.adaptive.mixtures import Mixture, as_mixture
from fedaudit.attacks.adaptive.noise_scale import is_even, noise_by_parameter
from fedaudit.attacks.adaptive.transform_behavior import behavior, drawing, followed
from fedaudit.attacks.evidence.round_averaging import average, rounds_of, weights_of
from fedaudit.attacks.training.schedule import scale_of
from fedaudit.core.errors import FedauditError
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.shared import Update
from fedaudit.defenses.gradient_transforms import (
    Accompanies,
    Batch,
    GradientTransform,
    ImageTransform,
)

PROBE = 7
"""Seed of the gradient that acts are tried on: another one than theirs, or noise would be it."""
MODELED_AGGREGATES = frozenset({"secure aggregation", "secure_aggregation"})
"""Not acts on a gradient: an aggregate is matched by all clients' images."""


@dataclass(frozen=True)
class Adaptation:
    """How an attack that knows the defenses meets them.

    Attributes:
        followed: What dummy gradients go through, in order; differentiable, without draws.
        scaled: Acts that change the length only: for distances that mind it.
        sparse: Zeros of the update stand for entries that were not sent.
        signs: All that was sent is signs.
        bent: The direction is about the gradient's, entry by entry it is not (signs, rounding).
        noise: Standard deviation of independent noise on each entry of `update`, in its units; 0
            where there is none.
        noises: The same by parameter, where it differs (rounding); {} where it does not.
        rounds: What the same client sent of the same weights, newest first.
        weights: What each of them counts under noise.
        units: Factor from a mean gradient to what was sent.
        each: What a single image's gradient goes through before the mean of several is taken.
        turned: Each parameter was turned away at right angles and kept its length.
        images: What the photos go through before they train, in order; with draws.
        company: What puts images beside the one photo that are found together with it.
        mixed: How the one photo was mixed with others of the client, anew in each round.
        missed: Names of defenses that this does not take into account.
    """

    followed: tuple[GradientTransform, ...] = ()
    scaled: tuple[GradientTransform, ...] = ()
    sparse: bool = False
    signs: bool = False
    bent: bool = False
    noise: float = 0.0
    noises: Mapping[str, float] = field(default_factory=dict)
    rounds: tuple[Update, ...] = ()
    weights: tuple[float, ...] = ()
    units: float = 1.0
    each: tuple[GradientTransform, ...] = ()
    turned: bool = False
    images: tuple[ImageTransform, ...] = ()
    company: Accompanies | None = None
    mixed: Mixture | None = None
    missed: tuple[str, ...] = ()

    @property
    def met(self) -> frozenset[str]:
        """Names of the attributes by which defenses are met, or said not to be.

        Not of what keeps the direction, which nobody has to meet.
        """
        kinds = ("followed", "sparse", "signs", "bent", "noise", "each", "turned", "images")
        found = [kind for kind in (*kinds, "company", "mixed", "missed") if getattr(self, kind)]
        return frozenset(found + ["noise"] * bool(self.noises))

    @property
    def exact(self) -> bool:
        """Whether what was sent has the direction of the gradient, entry by entry."""
        changed = self.followed or self.bent or self.sparse or self.images
        return not (changed or self.noise or self.each or self.turned or self.missed)

    @property
    def update(self) -> Update | None:
        """What is attacked: the mean over rounds where they differ by what was drawn."""
        if not self.rounds:
            return None
        if self.mixed or not (self.noise or self.sparse):
            return self.rounds[0]
        return average(self.rounds, sparse=self.sparse, weights=self.weights or None)

    def std_of(self, name: str) -> float:
        """Standard deviation of the noise on a parameter, in units of a mean gradient."""
        return self.noises.get(name, self.noise) / abs(self.units)

    @property
    def readable(self) -> bool:
        """Whether a linear structure of the gradient (its rank) survives, under noise or gaps."""
        return not (self.followed or self.bent or self.turned)

    def sent(self, dummy: Sequence[Tensor], names: Sequence[str], *, scaled: bool) -> list[Tensor]:
        """What a client with the mean gradient `dummy` would have sent, in the gradient's scale.

        Args:
            dummy: A tensor a parameter.
            names: Of the parameters.
            scaled: Whether its length matters.
        """
        transforms = (*self.scaled, *self.followed) if scaled else self.followed
        if not transforms:
            return list(dummy)
        return through(transforms, dummy, names, self.units)


def through(
    transforms: Sequence[GradientTransform],
    dummy: Sequence[Tensor],
    names: Sequence[str],
    units: float = 1.0,
) -> list[Tensor]:
    """`dummy` after `transforms`, which see it times `units`."""
    batch: Batch = {n: (t * units)[None] for n, t in zip(names, dummy, strict=True)}
    for transform in transforms:
        batch = transform(batch, drawing(0))
    return [batch[name][0] / units for name in names]


def adapt_to(seen: Observation) -> Adaptation:
    """The adaptation to what is known of the defense in use, or else to what the update shows.

    Args:
        seen: What the server saw.
    """
    update = seen.update
    if update is None or not update.tensors:
        return Adaptation()
    rounds = rounds_of(seen)
    facts = estimate(seen) if seen.defense is None else seen.defense
    if all(one.name == "none" for one in facts):
        return Adaptation(rounds=rounds[:1])
    units = _units(seen, update)
    probe = _probe(update.tensors)
    state = _State(units=units)
    for one in facts:
        _take(state, one, seen.batch_size or 1, probe, seen.image_shape)
    sent = {name: update.tensors[name] for name in probe}
    noises, state.noise = noise_by_parameter(state.rounding, state.noise, seen, sent)
    weights: tuple[float, ...] = ()
    left = 1.0 if state.mixed else len(rounds) ** -0.5
    if state.noise and not (state.sparse or state.mixed):
        weights, left = weights_of(rounds)
    if state.turned and (state.changed or (seen.batch_size or 1) > 1):
        # Lengths that were changed again say nothing, nor do those of a sum of several gradients.
        state.turned = False
        state.missed += [one.name for one in facts]
    return Adaptation(
        followed=tuple(state.followed),
        scaled=tuple(state.scaled),
        sparse=state.sparse,
        signs=state.signs,
        bent=state.bent,
        noise=state.noise * left,
        noises={name: std * left for name, std in noises.items()},
        units=units,
        rounds=rounds,
        weights=weights,
        each=tuple(state.each),
        turned=state.turned,
        images=tuple(state.images),
        company=state.company,
        mixed=state.mixed,
        missed=tuple(state.missed),
    )


class _State:
    """An adaptation in the making."""

    def __init__(self, units: float) -> None:
        self.units = units
        self.followed: list[GradientTransform] = []
        self.scaled: list[GradientTransform] = []
        self.each: list[GradientTransform] = []
        self.sparse = self.signs = self.bent = self.turned = False
        self.noise = 0.0
        self.rounding: list[tuple[GradientTransform, float]] = []
        self.images: list[ImageTransform] = []
        self.company: Accompanies | None = None
        self.mixed: Mixture | None = None
        self.missed: list[str] = []

    @property
    def changed(self) -> bool:
        """Whether anything is done to lengths or entries."""
        entries = self.followed or self.sparse or self.bent or self.noise
        return bool(entries or self.scaled or self.each)


def _take(
    state: _State,
    facts: DefenseFacts,
    count: int,
    probe: dict[str, Tensor],
    shape: tuple[int, int, int] | None,
) -> None:
    """Add one defense."""
    if facts.name in MODELED_AGGREGATES:
        return
    try:
        company = company_of(facts)
        if company is not None and company.copies == count:
            state.company = company
            return
        replayed = replay_of((facts,), count)
    except (FedauditError, TypeError, ValueError):  # settings may be known in part only
        state.missed.append(facts.name)
        return
    changed = replayed.images
    mixture = as_mixture(changed, shape) if changed and shape and count == 1 else None
    if mixture:
        if state.mixed and (state.mixed.masked or mixture.masked):  # mixtures of masked images
            state.missed.append(facts.name)
        state.mixed = mixture
    elif changed and (shape is None or mixes(changed, shape)):
        state.missed.append(facts.name)
    else:
        state.images = [*changed, *state.images]
    if state.mixed and state.images:  # mixtures of changed photos, or changed mixtures
        state.missed.append(facts.name)
    mean = replayed.mean
    if replayed.each and count == 1:
        mean = (*replayed.each, *mean)
    elif any(behavior(transform, probe)[0] != "kept" for transform in replayed.each):
        state.missed.append(facts.name)
    else:  # clipping of single images weighs those of a batch against each other
        state.each += replayed.each
    # What acts on an image's gradient acts before the learning rate.
    length = abs(state.units) if replayed.each else 1.0
    for transform in mean:
        _add(state, transform, facts.name, probe, length)


def _add(
    state: _State, transform: GradientTransform, name: str, probe: dict[str, Tensor], length: float
) -> None:
    kind, noise = behavior(transform, probe)
    if kind == "lost":
        state.missed.append(name)
    elif kind == "sparse":
        state.sparse = True
    elif kind == "noise" and not is_even(transform, probe):
        state.rounding.append((transform, noise * length))
    elif kind == "noise":
        state.noise = (state.noise**2 + (noise * length) ** 2) ** 0.5
    elif kind == "kept":
        state.scaled.append(transform)
    elif kind == "turned":
        state.turned = True
    elif kind == "bent":
        state.bent = True
        done = transform(probe, drawing(0))
        state.signs = all(bool((done[n] == v.sign()).all()) for n, v in probe.items())
    else:
        state.followed.append(followed(transform, probe))


def _probe(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A gradient of no client, with the update's shapes and the lengths of its layers."""
    generator = drawing(PROBE)
    found = {}
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.numel():
            continue
        size = float(value.norm()) / max(1, int((value != 0).sum())) ** 0.5
        drawn = torch.randn(value.shape, generator=generator).to(value)
        found[name] = (drawn * (size or 1e-12))[None]
    return found


def _units(seen: Observation, update: Update) -> float:
    if update.kind == "gradient" or seen.training is None:
        return 1.0
    return -scale_of(seen.training)
