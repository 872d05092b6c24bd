"""The earliest feature maps that the update gives away exactly, and what makes them of images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.evidence.feature_maps.last_block import invert_last_block
from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.models.facenet import FaceNet


@dataclass(frozen=True)
class KnownMaps:
    """Feature maps of the batch.

    Attributes:
        maps: `[N, C, h, w]`.
        features: Images `[n, C, H, W]` → `[n, C, h, w]`, differentiable.
        origin: "inverted" (before the last block), "map" (flattened), "average" (`[C, 1, 1]`).
    """

    maps: Tensor
    features: Callable[[Tensor], Tensor]
    origin: str

    def distance(self, images: Tensor) -> Tensor:
        """Sine of the angle between the maps of images and the known ones, `[N]`; lengths differ.

        Near a solution the squared error vanishes beside any prior, its root does not.
        """
        maps: Tensor = self.features(images)
        made, known = maps.flatten(1), self.maps.flatten(1)
        made = made / (made.norm(dim=1, keepdim=True) + 1e-12)
        known = known / (known.norm(dim=1, keepdim=True) + 1e-12)
        apart: Tensor = (made - known).square().sum(1)
        return (apart + 1e-10).sqrt()


def known_maps(evidence: Evidence) -> KnownMaps | None:
    """The earliest maps that are known; None where not even the last one is."""
    model, entry = evidence.model, evidence.first_fc
    if (
        not isinstance(model, FaceNet)
        or entry is None
        or entry.maps is None
        or entry.known is not None
    ):
        return None
    inverted = invert_last_block(evidence)
    if inverted is not None:
        assert isinstance(model.body, torch.nn.Sequential)
        return KnownMaps(inverted.maps, model.body[: inverted.depth], "inverted")
    count = len(entry.maps)
    if model.pool == "average":

        def average(images: Tensor) -> Tensor:
            features: Tensor = model.features(images)
            return features[:, :, None, None]

        return KnownMaps(entry.maps[:, :, None, None], average, "average")
    with torch.no_grad():
        size = model.body(entry.maps.new_zeros(1, *evidence.shape)).shape[1:]
    return KnownMaps(entry.maps.view(count, *size), model.body, "map")
