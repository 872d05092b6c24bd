"""Faces as a generator draws them, fitted to the size and color of the attacked images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fedaudit.core.errors import ConfigError, UsageError
from fedaudit.data.crop import LUMINANCE
from fedaudit.models.face_gan import DEFAULT_CROP
from fedaudit.models.foreign_settings import check_crop
from fedaudit.models.generator import Generator, StagedGenerator, load_generator

__all__ = ["DEFAULT_CROP", "LATENT_PRIOR", "CropEdges", "FaceGenerator", "FittedGenerator"]

# Set by hand; what it reaches is measured by benchmarks/attack_quality.py.
LATENT_PRIOR = 1e-3
"""Weight of |z|²/dim, which keeps latent vectors where the generator was trained."""
CropEdges = tuple[float, float, float, float]
"""(top, bottom, left, right) in [0, 1]."""

PART = 64
"""Faces drawn at once."""


@dataclass(frozen=True, kw_only=True)
class FaceGenerator:
    """A generator's images, cropped, resized, and turned gray where the evidence says so.

    Args:
        source: "face_gan", a prior that `fedaudit prior train` wrote (.safetensors), a TorchScript
            or torch.export file, or `package.module:factory`.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1]:
            the face GAN's faces have more background than a face crop. None keeps what the
            generator says is a face crop: all of it for a generator that says nothing.
    """

    source: str = "face_gan"
    crop: CropEdges | None = None

    def __post_init__(self) -> None:
        if self.crop is not None:
            check_crop(*self.crop)

    def load(self, shape: tuple[int, int, int], *, grayscale: bool) -> "FittedGenerator":
        """The generator for images of `shape` (C, H, W)."""
        network = load_generator(self.source)
        crop = network.crop if self.crop is None else self.crop
        return FittedGenerator(network, crop, shape, grayscale)


@dataclass(frozen=True)
class FittedGenerator:
    """A loaded generator whose outputs have the attacked images' shape.

    Its latents are in units of their own spread around their mean, whatever their distribution:
    what `sample` draws, `images` takes, and |z|²/dim is the penalty that keeps a latent where the
    generator was trained. For a standard normal these are the generator's own latents.
    """

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
        """Latents `[count, *latents.shape]` from the generator's own distribution, in its units."""
        latents = self.network.latents
        return latents.standardize(latents.draw(count, generator))

    def draw(
        self, count: int, generator: torch.Generator, device: torch.device | None = None
    ) -> Tensor:
        """Generated faces `[count, C, H, W]` in [0, 1]; without a graph."""
        latent = self.sample(count, generator).to(device)
        with torch.no_grad():
            return torch.cat([self.images(part) for part in torch.split(latent, PART)])

    def images(self, latent: Tensor) -> Tensor:
        """`[N, *latents.shape]` → `[N, C, H, W]` in [0, 1]."""
        return self._fit(self.network(self.network.latents.restore(latent)))

    def enter(self, variable: Tensor, start: int, stage: int) -> Tensor:
        """The feature map of `stage`, from the variable of an earlier stage (0: the latent)."""
        network = self.network
        assert isinstance(network, StagedGenerator)
        with torch.no_grad():
            if start == 0:
                return network.features(network.latents.restore(variable), stage)
            for index in range(start, stage):
                variable = network.stages[index](variable)
        return variable

    def images_from(self, variable: Tensor, stage: int) -> Tensor:
        """Images from the variable of `stage`."""
        if stage == 0:
            return self.images(variable)
        assert isinstance(self.network, StagedGenerator)
        return self._fit(self.network.forward_from(stage, variable))

    def parameters(self, count: int) -> dict[str, Tensor]:
        """Copies of the generator's weights, leaves to search: `count` of each, `[count, …]`.

        Raises:
            UsageError: The generator is not a module whose weights can be replaced.
        """
        network = self._replaceable()
        return {
            name: value.detach().expand(count, *value.shape).clone().requires_grad_()
            for name, value in network.named_parameters()
        }

    def images_with(self, parameters: Mapping[str, Tensor], latent: Tensor) -> Tensor:
        """Images, each with weights of its own from `parameters` (GIAS; Jeon et al. 2021)."""
        network = self._replaceable()
        latents = self.network.latents.restore(latent)
        # One at a time: as quick as a vmap here, and foreign networks need not support that.
        images = [
            functional_call(network, {name: value[i] for name, value in parameters.items()}, (z,))
            for i, z in enumerate(torch.split(latents, 1))
        ]
        return self._fit(torch.cat(images))

    def _replaceable(self) -> nn.Module:
        network = self.network
        has_script = isinstance(network, nn.Module) and any(
            isinstance(part, torch.jit.ScriptModule) for part in network.modules()
        )
        if not isinstance(network, nn.Module) or has_script or not list(network.parameters()):
            raise UsageError(
                "this generator's weights cannot be searched: it is compiled to TorchScript, or "
                "has none. Give it as a torch.export file (.pt2) or package.module:factory, or "
                "search its latent only."
            )
        return network

    def _fit(self, images: Tensor) -> Tensor:
        channels, height, width = self.shape
        if images.shape[1] == 3 and (self.grayscale or channels == 1):
            weights = images.new_tensor(LUMINANCE).view(1, 3, 1, 1)
            images = (images * weights).sum(1, keepdim=True)
        images = F.interpolate(
            crop_images(images, self.crop),
            (height, width),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        return images.expand(-1, channels, -1, -1)


def crop_images(images: Tensor, crop: tuple[float, float, float, float]) -> Tensor:
    """The part of `[N, C, H, W]` that `crop` (top, bottom, left, right) names."""
    top, bottom, left, right = crop
    rows, columns = images.shape[2:]
    return images[
        :,
        :,
        round(top * rows) : round(bottom * rows),
        round(left * columns) : round(right * columns),
    ]
