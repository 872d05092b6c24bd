"""The earliest feature maps that the update gives away exactly, and what makes them of images."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedaudit.attacks.evidence.feature_maps.last_block import invert_last_block
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.models.facenet import FaceNet


@dataclass(frozen=True)
class KnownMaps:
    """Feature maps `[N, C, h, w]` of the batch, that `depth` modules of the body make.

    Attributes:
        depth: None for what enters the embedding.
        origin: "inverted" (before the last block), "map" (flattened), "average" (`[C, 1, 1]`).
        error: Relative, of inverted maps.
    """

    model: FaceNet
    maps: Tensor
    depth: int | None
    origin: Literal["inverted", "map", "average"]
    error: float = 0.0

    def features(self, images: Tensor) -> Tensor:
        """Images `[n, C, H, W]` → `[n, C, h, w]`, differentiable."""
        return flat_maps(self.model, self.depth, images).view(-1, *self.maps.shape[1:])

    def distance(self, images: Tensor) -> Tensor:
        """Sine of the angle between the maps of images and the known ones, `[N]`; lengths differ.

        Near a solution the squared error vanishes beside any prior, its root does not.
        """
        units = [x.flatten(1) for x in (self.features(images), self.maps)]
        maps, target = (x / (x.norm(dim=1, keepdim=True) + 1e-12) for x in units)
        apart: Tensor = (maps - target).square().sum(1)
        return (apart + 1e-10).sqrt()


def flat_maps(model: FaceNet, depth: int | None, images: Tensor) -> Tensor:
    """Images → what `depth` modules of the body make of them (None: all of them), `[n, F]`."""
    if depth is None:
        return model.features(images)
    maps = images
    for layer in list(model.body.children())[:depth]:
        maps = layer(maps)
    return maps.flatten(1)


def known_maps(reading: Reading, *, invert: bool = True) -> KnownMaps | None:
    """The earliest maps that are known, first before the last block if `invert`; else None."""
    model, first_fc = reading.model, reading.first_fc
    if not isinstance(model, FaceNet) or first_fc is None:
        return None
    if first_fc.maps is None or first_fc.known is not None:
        return None
    block = invert_last_block(reading) if invert else None
    if block is not None:
        return KnownMaps(model, block.maps, block.depth, "inverted", block.error)
    if model.pool == "average":
        return KnownMaps(model, first_fc.maps[:, :, None, None], None, "average")
    with torch.no_grad():
        size = model.body(first_fc.maps.new_zeros(1, *reading.shape)).shape[1:]
    if len(size) == 1:  # a stranger's body may end in rows
        size = torch.Size((*size, 1, 1))
    return KnownMaps(model, first_fc.maps.view(-1, *size), None, "map")
