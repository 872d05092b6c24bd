"""Pixels, or a coarser grid of them, as what a search varies."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.search.scene import Scene, StageResult, images_of
from fedaudit.attacks.search.span_mending import mend
from fedaudit.core.choices import check_choices


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Every pixel is free; one channel where the update proves the images gray.

    Args:
        start: "gray" (0.5 with a little uniform noise), "uniform" noise in [0, 1], "normal" noise
            around 0.5 (DLG's), the "previous" stage's images, or those "mended": drawn anew where
            what layers' inputs span shows that they are wrong (`span_mending`). "anew" is as
            "normal", and "last" what the stage before ended with, were it not the best so far.
        spread: Half the width of the noise around gray.
        clamp: Keep them in [0, 1] after each step.
        coarse: What varies is a grid of so many times fewer points along each side, from which the
            pixels are interpolated: noise finer than that cannot explain an update.
    """

    start: Literal["anew", "gray", "last", "mended", "normal", "previous", "uniform"] = "gray"
    spread: float = 0.1
    clamp: bool = True
    coarse: int = 1

    def __post_init__(self) -> None:
        check_choices(self)

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """Noise, or the images so far."""
        evidence, like = scene.evidence, scene.like
        if self.start in ("last", "mended", "previous"):
            images = before.images
            if self.start == "last":
                images = images_of(scene, before)
            if self.start == "mended":
                spans = scene.leading
                assert spans is not None
                images = torch.stack([mend(spans, one, scene.generator) for one in images])
            channels = evidence.free_shape[0]
            return [self._grid_of(images[:, i, :channels]) for i in range(evidence.count)]
        channels, height, width = evidence.shape
        grid = -(-height // self.coarse), -(-width // self.coarse)
        size = (scene.restarts, evidence.count, channels, *grid)
        if self.start in ("anew", "normal"):
            noise = 0.5 + 0.25 * torch.randn(size, generator=scene.generator)
        else:
            noise = torch.rand(size, generator=scene.generator)
            if self.start == "gray":
                noise = 0.5 + self.spread * (2 * noise - 1)
        if evidence.grayscale:
            noise = noise.mean(2, keepdim=True)
        return list(noise.to(like).unbind(1))

    def _grid_of(self, images: Tensor) -> Tensor:
        if self.coarse == 1:
            return images.clone()
        height, width = images.shape[2:]
        grid = -(-height // self.coarse), -(-width // self.coarse)
        return F.interpolate(images, grid, mode="area")

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """The pixels themselves, or what their grid draws."""
        if self.coarse > 1:
            variable = F.interpolate(variable, tuple(scene.evidence.shape[1:]), mode="bicubic")
        return variable.expand(-1, scene.evidence.shape[0], -1, -1)

    def project(self, _: Tensor, value: Tensor) -> Tensor:
        """Into the range of images."""
        return value.clamp(0, 1) if self.clamp else value


MENDED = Pixels(start="mended")
ANEW = Pixels(start="anew", coarse=2)
OTHER_NOISE = Pixels(start="anew")
FINER = Pixels(start="last")
"""What varies where a search is stuck: images mended; or drawn anew, then on their own grid."""
