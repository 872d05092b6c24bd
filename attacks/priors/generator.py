"""Faces as a generator draws them, fitted to the size and color of the attacked images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.errors import ConfigError
from fedaudit.models.generator import Generator, StagedGenerator, load_generator

DEFAULT_CROP = (0.09, 0.97, 0.06, 0.94)
"""Fits the face GAN's images to photos cropped from brow to chin, as ORL's are."""
LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class FaceGenerator:
    """A generator's images, cropped, resized, and turned gray where the evidence says so.

    Args:
        source: "face_gan", a TorchScript or torch.export file, or `package.module:factory`.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1]:
            its faces have more background than a face crop.
    """

    source: str = "face_gan"
    crop: tuple[float, float, float, float] = DEFAULT_CROP

    def __post_init__(self) -> None:
        top, bottom, left, right = self.crop
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            raise ValueError("crop is (top, bottom, left, right) with 0 ≤ top < bottom ≤ 1")

    def load(self, shape: tuple[int, int, int], *, grayscale: bool) -> "FittedGenerator":
        """The generator for images of `shape` (C, H, W)."""
        return FittedGenerator(load_generator(self.source), self.crop, shape, grayscale)


@dataclass(frozen=True)
class FittedGenerator:
    """A loaded generator whose outputs have the attacked images' shape."""

    network: Generator
    crop: tuple[float, float, float, float]
    shape: tuple[int, int, int]
    grayscale: bool

    def stages(self, wanted: Sequence[int]) -> tuple[int, ...]:
        """Those of `wanted` that this generator has; none for one that cannot be entered inside."""
        if not isinstance(self.network, StagedGenerator):
            return ()
        beyond = [s for s in wanted if not 0 < s < len(self.network.stages)]
        if beyond:
            raise ConfigError(
                f"the generator has no inner stage {beyond[0]}: choose from "
                f"1 to {len(self.network.stages) - 1}"
            )
        return tuple(wanted)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Latent vectors `[count, latent_dim]` from the standard normal."""
        return torch.randn(count, self.network.latent_dim, generator=generator)

    def images(self, latent: Tensor) -> Tensor:
        """`[N, latent_dim]` → `[N, C, H, W]` in [0, 1]."""
        return self._fit(self.network(latent))

    def enter(self, variable: Tensor, start: int, stage: int) -> Tensor:
        """The feature map of `stage`, from the variable of an earlier stage (0: the latent)."""
        network = self.network
        assert isinstance(network, StagedGenerator)
        with torch.no_grad():
            if start == 0:
                return network.features(variable, stage)
            for index in range(start, stage):
                variable = network.stages[index](variable)
        return variable

    def images_from(self, variable: Tensor, stage: int) -> Tensor:
        """Images from the variable of `stage`."""
        if stage == 0:
            return self.images(variable)
        assert isinstance(self.network, StagedGenerator)
        return self._fit(self.network.forward_from(stage, variable))

    def _fit(self, images: Tensor) -> Tensor:
        channels, height, width = self.shape
        if images.shape[1] == 3 and (self.grayscale or channels == 1):
            weights = images.new_tensor(LUMINANCE).view(1, 3, 1, 1)
            images = (images * weights).sum(1, keepdim=True)
        top, bottom, left, right = self.crop
        rows, columns = images.shape[2:]
        images = images[
            :,
            :,
            round(top * rows) : round(bottom * rows),
            round(left * columns) : round(right * columns),
        ]
        images = F.interpolate(
            images, (height, width), mode="bilinear", antialias=True, align_corners=False
        )
        return images.expand(-1, channels, -1, -1)
