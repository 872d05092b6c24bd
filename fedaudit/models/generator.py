"""Face generators as image priors of attacks: their interface, and loading one by name or file."""

import pickle
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fedaudit.core.errors import AssetError, first_line
from fedaudit.files import asset_store
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.foreign_generator import load_foreign
from fedaudit.models.latents import Latents
from fedaudit.models.prior_file import read_prior


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


@runtime_checkable
class StagedGenerator(Generator, Protocol):
    """A generator that can also be entered half way, at an inner feature map."""

    @property
    def stages(self) -> nn.ModuleList:
        """Stages in order, each a module that takes the feature map of the one before."""

    def features(self, z: Tensor, stage: int) -> Tensor:
        """The feature map that stage `stage` takes; stage 0 takes the latent itself."""

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images from the feature map that stage `stage` takes."""


def load_generator(source: str = "face_gan", *, latent_dim: int | None = None) -> Generator:
    """A frozen generator in evaluation mode.

    Args:
        source: "face_gan"; a prior that `fedaudit prior train` wrote (`.safetensors`); the path of
            a TorchScript file (`.ts`, `.pt`) or a `torch.export` file (`.pt2`); or
            `package.module:factory`, which is imported and called without arguments.
        latent_dim: Width of the latent vector; None asks the network or the settings of its file
            (`fedaudit.models.foreign_settings`), or tries the usual widths.

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
        raise AssetError(
            f"the weights of asset 'face_gan' in {path} do not fit: {first_line(error)} Unset "
            "FEDAUDIT_ASSET_FACE_GAN if you set it, and run: fedaudit assets fetch face_gan"
        ) from error
    return model.eval().requires_grad_(False)
