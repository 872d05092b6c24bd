"""Turned, sheared and mirrored copies of each photo train beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.choices import check_choices
from fedaudit.core.client import ClientStep
from fedaudit.defenses.augmentations import rotate, shear_x
from fedaudit.defenses.gradient_transforms import ImageTransform, Replayed
from fedaudit.defenses.on_photos import on_photos
from fedaudit.defenses.settings import public_settings

FLIPS = {"horizontal": 3, "vertical": 2}


@dataclass(frozen=True, kw_only=True)
class OASIS:
    """Train on each photo and fixed copies of it, so that a row that catches one catches several.

    OASIS (Jeter et al., ICDCS 2024, arXiv 2311.13739), against servers that send models which keep
    images apart (`imprint`, `trap_weights`): copies that set off the same neurons as their photo
    leave only sums of themselves to read. The default is what the paper calls major rotation
    (recalled): quarter turns keep exactly an image's brightness, by which imprinting sorts; shears
    do not. A photo and its copies train in the same step, which grows by as much. Whoever
    knows the copies can look for a photo that explains the sums. Refuses DP-SGD beside it, whose
    unit is one image. Guarantee: none, it is a heuristic.

    Args:
        rotations: Degrees of the turned copies, counterclockwise; black fills the corners.
        shears: Tangents of the sheared copies, in [-1, 1].
        flips: Mirrored copies: "horizontal", "vertical".
    """

    rotations: tuple[float, ...] = (90.0, 180.0, 270.0)
    shears: tuple[float, ...] = ()
    flips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("rotations", "shears", "flips"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if any(not 0 < abs(degrees) < 360 for degrees in self.rotations):
            raise ValueError(f"rotations must lie in (0, 360) degrees, not {self.rotations}")
        if any(not 0 < abs(shear) <= 1 for shear in self.shears):
            raise ValueError(f"shears must lie in [-1, 1] and not be 0, not {self.shears}")
        if unknown := [flip for flip in self.flips if flip not in FLIPS]:
            raise ValueError(f"flips must be 'horizontal' or 'vertical', not {unknown[0]!r}")
        if self.copies == 1:
            raise ValueError("rotations, shears and flips are all empty: name at least one copy")

    @property
    def copies(self) -> int:
        """Images of each photo, itself among them."""
        return 1 + len(self.rotations) + len(self.shears) + len(self.flips)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Put copies beside the photos that the step trains on."""
        transform = self.replay(1).images[0]
        return on_photos(step, transform, copies=self.copies, several="oasis")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's images: N photos are N · copies images behind the update."""
        return Replayed(images=(_beside(self),))

    keeps_claims = True
    facts = public_settings("oasis")


def _beside(oasis: OASIS) -> ImageTransform:
    def transform(
        images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        each = images.new_ones(len(images))
        copies = [images]
        copies += [rotate(images, degrees * each) for degrees in oasis.rotations]
        copies += [shear_x(images, shear * each) for shear in oasis.shears]
        copies += [images.flip(FLIPS[flip]) for flip in oasis.flips]
        return torch.stack(copies, 1).flatten(0, 1), labels.repeat_interleave(oasis.copies, 0)

    return transform
