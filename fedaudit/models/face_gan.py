"""The DCGAN of faces: the built-in generator, and one that `fedaudit prior train` makes."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from fedaudit.models.stacked_generator import StackedGenerator

LATENT_DIM = 100
WIDTHS = (512, 256, 128, 64)
DEFAULT_CROP = (0.09, 0.97, 0.06, 0.94)
"""Fits the face GAN's images to photos cropped from brow to chin, as ORL's are."""


class FaceGan(StackedGenerator):
    """DCGAN (Radford et al. 2016).

    The built-in one was trained on DigiFace-1M and has five stages. The feature maps between them:
    stage 1 takes `[N, 512, 4, 4]`, 2 `[N, 256, 8, 8]`, 3 `[N, 128, 16, 16]`, 4 `[N, 64, 32, 32]`;
    they are outputs of a ReLU, so never negative.

    Args:
        widths: Channels of the feature maps between the stages.
        latent_dim: Width of the latent vector.
        crop: Part of its image that is a face crop, as (top, bottom, left, right) in [0, 1].
        mapped: A linear map stands before the first stage.
    """

    architecture = "dcgan"

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        latent_dim: int = LATENT_DIM,
        crop: tuple[float, float, float, float] = DEFAULT_CROP,
        mapped: bool = False,
    ) -> None:
        super().__init__(widths, latent_dim, crop, mapped)
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
