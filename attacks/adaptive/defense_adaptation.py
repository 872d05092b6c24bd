"""The protocol by which a special defense says what an attacker does about it.

Most defenses are functions of gradients or images, and `probing` finds out how to meet those by
trying them. What no such function describes is a `DefenseAdaptation`: one for each kind of
defense, in a file of its own. A defense of another package hands its own in (`HandsInAdaptation`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fedaudit.attacks.adaptive.mixture_arithmetic import Coefficients
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.defenses.gradient_transforms import ImageTransform

Rounds = Sequence[Mapping[str, Tensor]]
"""What was sent in each round as a mean gradient by parameter name, newest first."""


def _without_faces(*_: Any) -> Any:
    raise TypeError("an attack without faces of its own has no use for this")


@dataclass(frozen=True)
class Attacker:
    """What the attack at hand can do, for adaptations that work on the images that it found.

    Attributes:
        matched: It compares gradients of dummy images, and does to each what defenses do.
        single_step: Those are gradients at the broadcast weights, not several replayed steps.
        source: Where its own faces come from, as in `Auxiliary`; None where it has none.
        earlier_rounds: Attacks the rounds before one by one: the image `[C, H, W]` of each, and its
            class probabilities `[K]`; rounds whose labels cannot be read are left out.
        mean_face: `[C, H, W]`, of its own faces.
        unmasked: What `Unmasking.unmasked` gives of transforms, masked images and coefficients.
    """

    matched: bool = False
    single_step: bool = True
    source: str | None = None
    earlier_rounds: Callable[[], Iterable[tuple[Tensor, Tensor]]] = tuple
    mean_face: Callable[[], Tensor] = _without_faces
    unmasked: Callable[[Sequence[ImageTransform], Tensor, Coefficients], tuple[Tensor, Tensor]] = (
        _without_faces
    )


@dataclass(frozen=True, kw_only=True)
class DefenseAdaptation:
    """What an attacker does about one special defense; what is left out changes nothing.

    Attributes:
        name: What was done, such as "orthogonalized".
        directional: What was sent still points along the gradient, so that it can be read.
        repeats: Rounds on the same photos send the same gradient, but for noise.
        distance: The distance between gradients that alone applies; None leaves it to the attack.
        read: The reading, corrected for the defense, of the head's gradient (None where it was not
            shared) and all rounds.
        label: The labels `[N]` where they show in the gradients of generic faces (a function from a
            number to as many `[n, C, H, W]`), given whether a gradient's units are known; else
            None.
        equations: How many numbers are known of the gradient, where they may be fewer than pixels.
        looks_like_noise: Whether the images that trained look like noise, to no face prior's taste.
        reveal: The photos and their labels, of the images that explain the update and theirs.
        handled: Whether an attack that does all this has taken the defense into account.
    """

    name: str
    directional: bool = True
    repeats: bool = True
    distance: str | None = None
    read: Callable[[Reading, HeadGradient | None, Rounds], Reading] = lambda reading, *_: reading
    label: Callable[[Reading, Callable[[int], Tensor], bool], Tensor | None] = lambda *_: None
    equations: Callable[[Reading], int | None] = lambda _: None
    looks_like_noise: Callable[[Reading], bool] = lambda _: False
    reveal: Callable[[Tensor, Tensor, Reading, Attacker], tuple[Tensor, Tensor]] = (
        lambda images, labels, *_: (images, labels)
    )
    handled: Callable[[Reading, Attacker], bool] = lambda *_: True


@runtime_checkable
class HandsInAdaptation(Protocol):
    """A defense that brings its own adaptation, in place of functions that attackers can try."""

    def adaptation(self, count: int) -> DefenseAdaptation | None:
        """For an update that `count` images are behind; None where nobody can do anything."""
        ...
