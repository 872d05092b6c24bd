"""What the generators of faces share that `fedaudit prior train` makes: a stack of stages."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from fedaudit.models import latents

Architecture = Literal["dcgan", "style"]


class StackedGenerator(nn.Module):
    """`[N, latent_dim]` → `[N, 3, S, S]`, S = 4 · 2 ** len(widths), in len(widths) + 1 stages.

    The first stage takes the latents as maps of one pixel, `[N, latent_dim, 1, 1]`, and the last
    gives images in [-1, 1]. Each takes what the one before gives, so that a search can go on in
    between, from any of them.

    Args:
        widths: Channels of the feature maps between the stages.
        latent_dim: Width of the latent vector.
        crop: Part of its image that is a face crop, as (top, bottom, left, right) in [0, 1].
        mapped: A linear map stands before the first stage: from standard normal latents to those
            that the stages were trained on.
    """

    architecture: ClassVar[Architecture]
    stages: nn.ModuleList

    def __init__(
        self,
        widths: Sequence[int],
        latent_dim: int,
        crop: tuple[float, float, float, float],
        mapped: bool,
    ) -> None:
        super().__init__()
        self.mapping = nn.Linear(latent_dim, latent_dim) if mapped else None
        self.widths, self.latent_dim, self.crop = tuple(widths), latent_dim, crop
        self.latents = latents.normal(latent_dim)

    @property
    def side(self) -> int:
        """Height and width of its images."""
        return 4 << len(self.widths)

    def forward(self, z: Tensor) -> Tensor:
        """Images `[N, 3, S, S]` in [0, 1] from latent vectors `[N, latent_dim]` ~ N(0, 1)."""
        return self.forward_from(0, z)

    def features(self, z: Tensor, stage: int) -> Tensor:
        """What stage `stage` takes, from latent vectors; stage 0 takes those themselves."""
        return self._run(z, 0, self._check(stage))

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images `[N, 3, S, S]` in [0, 1] from what stage `stage` takes."""
        return (self._run(feature, self._check(stage), len(self.stages)) + 1) / 2

    def _run(self, x: Tensor, first: int, end: int) -> Tensor:
        if first == 0 < end:
            x = x.flatten(1)
            x = (x if self.mapping is None else self.mapping(x))[:, :, None, None]
        for inner in self.stages[first:end]:
            x = inner(x)
        return x

    def _check(self, stage: int) -> int:
        if not 0 <= stage < len(self.stages):
            raise ValueError(f"stage {stage}: this generator has 0 to {len(self.stages) - 1}")
        return stage
