"""How an attack takes the defenses in use into account: what to follow, and what to see through.

`probing` finds it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from fedaudit.attacks.adaptive.defense_adaptation import DefenseAdaptation
from fedaudit.attacks.adaptive.transform_behavior import drawing
from fedaudit.attacks.evidence.round_averaging import average
from fedaudit.core.shared import Update
from fedaudit.defenses.gradient_transforms import Batch, GradientTransform, ImageTransform


@dataclass(frozen=True)
class Adaptation:
    """How an attack takes the defenses in use into account.

    Attributes:
        followed: What dummy gradients go through, in order; differentiable, without draws.
        scaled: Transforms that change the length only: for distances that mind it.
        sparse: Zeros of the update stand for entries that were not sent.
        columns: These are whole columns of weights (Soteria): what is left has the span of what is
            left of the inputs.
        signs: All that was sent is signs.
        bent: The direction is about the gradient's, entry by entry it is not (signs, rounding).
        noise: Standard deviation of independent noise on each entry of `update`, in its units; 0
            where there is none.
        noises: The same by parameter, where it differs (rounding); {} where it does not.
        rounding: Transforms whose noise goes with what they act on, and what each adds at a guess.
        rounds: What the same client sent of the same weights, newest first.
        weights: What each of them counts under noise.
        units: Factor from a mean gradient to what was sent.
        each: What a single image's gradient goes through before the mean of several is taken.
        images: What the photos go through before they train, in order; with draws.
        special: What is done about defenses that all of the above does not describe.
        missed: Names of defenses that this does not take into account.
    """

    followed: tuple[GradientTransform, ...] = ()
    scaled: tuple[GradientTransform, ...] = ()
    sparse: bool = False
    columns: bool = False
    signs: bool = False
    bent: bool = False
    noise: float = 0.0
    noises: Mapping[str, float] = field(default_factory=dict)
    rounding: tuple[tuple[GradientTransform, float], ...] = ()
    rounds: tuple[Update, ...] = ()
    weights: tuple[float, ...] = ()
    units: float = 1.0
    each: tuple[GradientTransform, ...] = ()
    images: tuple[ImageTransform, ...] = ()
    special: tuple[DefenseAdaptation, ...] = ()
    missed: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[str]:
        """Names of the defenses' effects on the update that an attack must take into account."""
        names = ("followed", "sparse", "signs", "bent", "noise", "each", "images", "missed")
        plain = frozenset(name for name in names if getattr(self, name))
        noise = frozenset({"noise"} if self.noises else ())
        return plain | noise | {one.name for one in self.special}

    @property
    def pruned(self) -> bool:
        """Whether entries are missing, here and there, and nothing else was done to the others."""
        changed = self.bent or self.noise or self.noises or self.followed
        return self.sparse and not (self.columns or changed)

    @property
    def exact(self) -> bool:
        """Whether what was sent has the direction of the gradient, entry by entry."""
        return self.untouched and not self.noise

    @property
    def untouched(self) -> bool:
        """Likewise, but for noise that was added to it, or seems to be."""
        bends = self.followed or self.bent or self.sparse or self.images
        return self.directional and not (bends or self.each or self.missed)

    @property
    def directional(self) -> bool:
        """Whether no special defense took the gradient's direction away."""
        return all(one.directional for one in self.special)

    @property
    def repeats(self) -> bool:
        """Whether rounds on the same photos send the same gradient again, but for noise."""
        return all(one.repeats for one in self.special)

    @property
    def update(self) -> Update | None:
        """What is attacked: the mean over rounds where they differ by what was drawn."""
        if not self.rounds:
            return None
        if not self.repeats or not (self.noise or self.sparse):
            return self.rounds[0]
        return average(self.rounds, sparse=self.sparse, weights=self.weights or None)

    def std_of(self, name: str) -> float:
        """Standard deviation of the noise on a parameter, in units of a mean gradient."""
        return self.noises.get(name, self.noise) / abs(self.units)

    @property
    def readable(self) -> bool:
        """Whether the gradient keeps its rank, under noise or with entries missing."""
        return self.directional and not (self.followed or self.bent)

    def sent(self, dummy: Sequence[Tensor], names: Sequence[str], *, scaled: bool) -> list[Tensor]:
        """What a client with the mean gradient `dummy` would have sent, in the gradient's scale."""
        transforms = (*self.scaled, *self.followed) if scaled else self.followed
        if not transforms:
            return list(dummy)
        return through(transforms, dummy, names, self.units)

    def missing(self, name: str) -> "Adaptation":
        """The same, with one more defense that is not taken into account."""
        return replace(self, missed=(*self.missed, name))

    def with_special(self, special: DefenseAdaptation) -> "Adaptation":
        """The same, with one more special defense."""
        return replace(self, special=(*self.special, special))


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
