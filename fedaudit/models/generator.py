"""Generators of faces: the attacker's picture of what a face is."""

import pickle
from functools import cache
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fedaudit import assets
from fedaudit.errors import AssetError
from fedaudit.models.foreign_generator import load_foreign

LATENT_DIM = 100


@runtime_checkable
class Generator(Protocol):
    """What an attack needs: latent vectors `[N, latent_dim]` → images `[N, C, H, W]` in [0, 1]."""

    latent_dim: int

    def __call__(self, z: Tensor) -> Tensor:
        """Images in [0, 1], differentiable in `z`."""
        ...


@runtime_checkable
class StagedGenerator(Generator, Protocol):
    """A generator that can also be entered half way, at an inner feature map."""

    stages: nn.ModuleList

    def features(self, z: Tensor, stage: int) -> Tensor:
        """The feature map that stage `stage` takes; stage 0 takes the latent vector itself."""
        ...

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images from the feature map that stage `stage` takes."""
        ...


class FaceGan(nn.Module):
    """DCGAN (Radford et al. 2016) trained on DigiFace-1M: `[N, 100]` → `[N, 3, 64, 64]`.

    Five stages. The feature maps between them: stage 1 takes `[N, 512, 4, 4]`, 2 `[N, 256, 8, 8]`,
    3 `[N, 128, 16, 16]`, 4 `[N, 64, 32, 32]`; they are outputs of a ReLU, so never negative.
    """

    latent_dim = LATENT_DIM

    def __init__(self) -> None:
        super().__init__()
        widths = (LATENT_DIM, 512, 256, 128, 64)
        hidden = [
            nn.Sequential(
                nn.ConvTranspose2d(a, b, 4, 1 if i == 0 else 2, 0 if i == 0 else 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            )
            for i, (a, b) in enumerate(pairwise(widths))
        ]
        last = nn.Sequential(nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())
        self.stages = nn.ModuleList([*hidden, last])

    def forward(self, z: Tensor) -> Tensor:
        """Images `[N, 3, 64, 64]` in [0, 1] from latent vectors `[N, 100]` ~ N(0, 1)."""
        return self.forward_from(0, z)

    def features(self, z: Tensor, stage: int) -> Tensor:
        """The feature map that stage `stage` takes, from latent vectors `[N, 100]`."""
        x = z
        for inner in self.stages[: self._checked(stage)]:
            x = inner(_as_map(x))
        return x

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images `[N, 3, 64, 64]` in [0, 1] from the feature map that stage `stage` takes."""
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
        source: "face_gan"; the path of a TorchScript file (`.ts`, `.pt`) or a `torch.export` file
            (`.pt2`); or `package.module:factory`, which is imported and called without arguments.
        latent_dim: Width of the latent vector; None asks the network for its `latent_dim`, and
            takes 100, 128, 256 or 512, the first that works, where it has none.

    Raises:
        UsageError: The source cannot be loaded, or gives something that is not images.
        AssetError: The built-in generator is neither cached nor fetchable.

    A TorchScript file is code that acts on tensors: reading it unpickles no Python objects. A
    torch.export file is read with pickles restricted to tensors, and refused where it holds
    compiled code. A factory is Python and may do anything. Use those whose origin you know.
    """
    if source == "face_gan":
        return _face_gan()
    generator = load_foreign(source, latent_dim)
    assert isinstance(generator, Generator)
    return generator


@cache
def _face_gan() -> FaceGan:
    path = assets.path("face_gan")
    model = FaceGan()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = state["netG_state_dict"].values()
        # Same layers in the same order; theirs are numbered through, ours are grouped in stages.
        names = dict(zip(model.state_dict(), weights, strict=True))
        model.load_state_dict(names)
    except (KeyError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise AssetError(
            f"the weights of asset 'face_gan' in {path} do not fit: {reason} Unset "
            "FEDAUDIT_ASSET_FACE_GAN if you set it, and run: fedaudit assets fetch face_gan"
        ) from error
    return model.eval().requires_grad_(False)
