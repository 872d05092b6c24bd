"""The DCGAN of faces: the built-in generator and those that `fedaudit prior train` makes."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fedaudit.models import latents

LATENT_DIM = 100
WIDTHS = (512, 256, 128, 64)
DEFAULT_CROP = (0.09, 0.97, 0.06, 0.94)
"""Fits the face GAN's images to photos cropped from brow to chin, as ORL's are."""


class FaceGan(nn.Module):
    """DCGAN (Radford et al. 2016): `[N, latent_dim]` → `[N, 3, S, S]`, S = 4 · 2 ** len(widths).

    The built-in one was trained on DigiFace-1M and has five stages. The feature maps between them:
    stage 1 takes `[N, 512, 4, 4]`, 2 `[N, 256, 8, 8]`, 3 `[N, 128, 16, 16]`, 4 `[N, 64, 32, 32]`;
    they are outputs of a ReLU, so never negative.

    Args:
        widths: Channels of the feature maps between the stages.
        latent_dim: Width of the latent vector.
        crop: Part of its image that is a face crop, as (top, bottom, left, right) in [0, 1].
        mapped: A linear map stands before the first stage: from standard normal latents to those
            that the stages were trained on.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        latent_dim: int = LATENT_DIM,
        crop: tuple[float, float, float, float] = DEFAULT_CROP,
        mapped: bool = False,
    ) -> None:
        super().__init__()
        self.mapping = nn.Linear(latent_dim, latent_dim) if mapped else None
        self.widths, self.latent_dim, self.crop = tuple(widths), latent_dim, crop
        self.latents = latents.normal(latent_dim)
        blocks = [
            nn.Sequential(
                nn.ConvTranspose2d(a, b, 4, 1 if i == 0 else 2, 0 if i == 0 else 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            )
            for i, (a, b) in enumerate(pairwise((latent_dim, *widths)))
        ]
        last = nn.Sequential(nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh())
        self.stages = nn.ModuleList([*blocks, last])

    @property
    def side(self) -> int:
        """Height and width of its images."""
        return 4 << len(self.widths)

    def forward(self, z: Tensor) -> Tensor:
        """Images `[N, 3, S, S]` in [0, 1] from latent vectors `[N, latent_dim]` ~ N(0, 1)."""
        return self.forward_from(0, z)

    def features(self, z: Tensor, stage: int) -> Tensor:
        """The feature map that stage `stage` takes, from latent vectors."""
        return self._run(z, 0, self._check(stage))

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images `[N, 3, S, S]` in [0, 1] from the feature map that stage `stage` takes."""
        return (self._run(feature, self._check(stage), len(self.stages)) + 1) / 2

    def _run(self, x: Tensor, first: int, end: int) -> Tensor:
        if self.mapping is not None and first == 0 < end:
            x = self.mapping(x.flatten(1))
        for inner in self.stages[first:end]:
            x = inner(_as_map(x))
        return x

    def _check(self, stage: int) -> int:
        if not 0 <= stage < len(self.stages):
            raise ValueError(f"stage {stage}: this generator has 0 to {len(self.stages) - 1}")
        return stage


def _as_map(x: Tensor) -> Tensor:
    return x[:, :, None, None] if x.dim() == 2 else x
