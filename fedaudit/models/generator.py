"""Generators of faces: the attacker's picture of what a face is."""

import pickle
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fedaudit.core.errors import AssetError
from fedaudit.files import asset_store
from fedaudit.models import latents
from fedaudit.models.foreign_generator import load_foreign
from fedaudit.models.latents import Latents

LATENT_DIM = 100
WIDTHS = (512, 256, 128, 64)
DEFAULT_CROP = (0.09, 0.97, 0.06, 0.94)
"""Fits the face GAN's images to photos cropped from brow to chin, as ORL's are."""


@runtime_checkable
class Generator(Protocol):
    """What an attack needs: latents `[N, *latents.shape]` → images `[N, C, H, W]` in [0, 1].

    A user's own network need not have all of this: `load_generator` adds what it lacks. What it
    may bring, as attributes: `sample(count, generator) -> latents`, `latent_shape`, `latent_dim`,
    `output_range` (what stands for black and white), `crop`.

    Attributes:
        latents: The distribution of its latents.
        latent_dim: How many numbers one latent has.
        crop: Part of its image that is a face crop, as (top, bottom, left, right) in [0, 1].
    """

    @property
    def latents(self) -> Latents: ...  # noqa: D102 - above

    @property
    def latent_dim(self) -> int: ...  # noqa: D102

    @property
    def crop(self) -> tuple[float, float, float, float]: ...  # noqa: D102

    def __call__(self, z: Tensor) -> Tensor:
        """Images in [0, 1], differentiable in `z`."""
        ...


@runtime_checkable
class StagedGenerator(Generator, Protocol):
    """A generator that can also be entered half way, at an inner feature map."""

    @property
    def stages(self) -> nn.ModuleList:
        """Each takes the feature map that the one before gives."""
        ...

    def features(self, z: Tensor, stage: int) -> Tensor:
        """The feature map that stage `stage` takes; stage 0 takes the latent itself."""
        ...

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images from the feature map that stage `stage` takes."""
        ...


class FaceGan(nn.Module):
    """DCGAN (Radford et al. 2016): `[N, latent_dim]` → `[N, 3, S, S]`, S = 4 · 2 ** len(widths).

    The built-in one was trained on DigiFace-1M and has five stages. The feature maps between them:
    stage 1 takes `[N, 512, 4, 4]`, 2 `[N, 256, 8, 8]`, 3 `[N, 128, 16, 16]`, 4 `[N, 64, 32, 32]`;
    they are outputs of a ReLU, so never negative.

    Args:
        widths: Channels of the feature maps between the stages.
        latent_dim: Width of the latent vector.
        crop: See `Generator`.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        latent_dim: int = LATENT_DIM,
        crop: tuple[float, float, float, float] = DEFAULT_CROP,
    ) -> None:
        super().__init__()
        self.widths, self.latent_dim, self.crop = tuple(widths), latent_dim, crop
        self.latents = latents.normal(latent_dim)
        hidden = [
            nn.Sequential(
                nn.ConvTranspose2d(a, b, 4, 1 if i == 0 else 2, 0 if i == 0 else 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            )
            for i, (a, b) in enumerate(pairwise((latent_dim, *widths)))
        ]
        last = nn.Sequential(nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh())
        self.stages = nn.ModuleList([*hidden, last])

    @property
    def side(self) -> int:
        """Height and width of its images."""
        return 4 << len(self.widths)

    def forward(self, z: Tensor) -> Tensor:
        """Images `[N, 3, S, S]` in [0, 1] from latent vectors `[N, latent_dim]` ~ N(0, 1)."""
        return self.forward_from(0, z)

    def features(self, z: Tensor, stage: int) -> Tensor:
        """The feature map that stage `stage` takes, from latent vectors."""
        x = z
        for inner in self.stages[: self._checked(stage)]:
            x = inner(_as_map(x))
        return x

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images `[N, 3, S, S]` in [0, 1] from the feature map that stage `stage` takes."""
        x = _as_map(feature)
        for inner in self.stages[self._checked(stage) :]:
            x = inner(x)
        return (x + 1) / 2

    def _checked(self, stage: int) -> int:
        if not 0 <= stage < len(self.stages):
            raise ValueError(f"stage {stage}: this generator has 0 to {len(self.stages) - 1}")
        return stage


def _as_map(x: Tensor) -> Tensor:
    return x[:, :, None, None] if x.dim() == 2 else x


def load_generator(source: str = "face_gan", *, latent_dim: int | None = None) -> Generator:
    """A frozen generator in evaluation mode.

    Args:
        source: "face_gan"; a prior that `fedaudit prior train` wrote (`.safetensors`); the path of
            a TorchScript file (`.ts`, `.pt`) or a `torch.export` file (`.pt2`); or
            `package.module:factory`, which is imported and called without arguments.
        latent_dim: Width of the latent vector; None asks the network for its `sample`,
            `latent_shape` or `latent_dim`, or the settings of its file
            (`fedaudit.models.foreign_settings`), and takes 100, 128, 256 or 512, the first that
            works, where nothing says it.

    Raises:
        UsageError: The source cannot be loaded, or gives something that is not images.
        AssetError: The built-in generator is neither cached nor fetchable.

    A TorchScript file is code that acts on tensors: reading it unpickles no Python objects. A
    torch.export file is read with pickles restricted to tensors, and refused where it holds
    compiled code. A factory is Python and may do anything. Use those whose origin you know.
    """
    if source == "face_gan":
        return _face_gan()
    if Path(source).suffix == ".safetensors":
        # It builds a FaceGan, which is defined here.
        from fedaudit.models.prior_file import read_prior  # noqa: PLC0415

        return read_prior(Path(source)).generator
    generator = load_foreign(source, latent_dim)
    assert isinstance(generator, Generator)
    return generator


@cache
def _face_gan() -> FaceGan:
    path = asset_store.path("face_gan")
    with torch.device("meta"):  # first weights would be drawn from torch's global state
        model = FaceGan()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = state["netG_state_dict"].values()
        # Same layers in the same order; theirs are numbered through, ours are grouped in stages.
        names = dict(zip(model.state_dict(), weights, strict=True))
        model.load_state_dict(names, assign=True)
    except (KeyError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise AssetError(
            f"the weights of asset 'face_gan' in {path} do not fit: {reason} Unset "
            "FEDAUDIT_ASSET_FACE_GAN if you set it, and run: fedaudit assets fetch face_gan"
        ) from error
    return model.eval().requires_grad_(False)
