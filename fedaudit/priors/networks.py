"""Networks of a prior's training: the encoder, copies and running averages of the generator."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedaudit.core.errors import UsageError
from fedaudit.models.prior_file import ARCHITECTURES
from fedaudit.models.stacked_generator import Architecture, StackedGenerator

SIZES = {32: (256, 128, 64), 64: (256, 128, 64, 32), 112: (256, 128, 64, 32, 16)}
"""Side of the images → channels between the generator's stages, which draw 4 · 2ⁿ pixels: 128 for
images of 112."""
_SPREAD = 0.02


class Encoder(nn.Module):
    """Photos `[N, 3, S, S]` in [0, 1] → mean and log variance of their latents, each `[N, D]`."""

    def __init__(self, latent_dim: int, side: int, width: int = 32, most: int = 256) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if side & (side - 1):  # halving must end at 4 pixels
            side = 1 << side.bit_length()
            layers.append(nn.Upsample((side, side), mode="bilinear"))
        channels = 3
        while side > 4:
            layers += [
                nn.Conv2d(channels, width, 4, 2, 1),
                nn.GroupNorm(8, width),
                nn.LeakyReLU(0.2),
            ]
            channels, width, side = width, min(2 * width, most), side // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, 2 * latent_dim))

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """The log variance is kept within [-8, 2], where its exponent is harmless."""
        mean, logvar = self.body(2 * photos - 1).chunk(2, 1)
        return mean, logvar.clamp(-8, 2)


def fresh_generator(side: int, latent_dim: int, architecture: Architecture) -> StackedGenerator:
    """A generator with random weights from torch's global state; fork it before."""
    if side not in SIZES:
        raise UsageError(f"a prior of {side} pixels: choose {' or '.join(map(str, SIZES))}.")
    generator = ARCHITECTURES[architecture](SIZES[side], latent_dim, (0.0, 1.0, 0.0, 1.0), False)
    for module in generator.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, _SPREAD)  # as Radford et al. (2016) do
    return generator


def copy_generator(generator: StackedGenerator) -> StackedGenerator:
    """A trainable copy of a generator."""
    with torch.device("meta"):  # first weights would be drawn from torch's global state
        copy = _alike(generator, mapped=generator.mapping is not None)
    weights = {name: value.detach().clone() for name, value in generator.state_dict().items()}
    copy.load_state_dict(weights, assign=True)
    return copy


def with_mapping(generator: StackedGenerator, mean: Tensor, covariance: Tensor) -> StackedGenerator:
    """A copy whose standard normal latents become those of this mean `[D]` and covariance `[D, D]`.

    After Ghosh et al. (ICLR 2020): what an encoder makes of photos is no standard normal, and
    latents drawn from one that fits give better faces, for nothing.
    """
    copy = _alike(generator, mapped=True)
    factor = torch.linalg.cholesky(covariance.double()).to(mean)
    weights = generator.state_dict() | {"mapping.weight": factor, "mapping.bias": mean}
    copy.load_state_dict({name: value.detach().clone() for name, value in weights.items()})
    return copy.eval().requires_grad_(False)


def _alike(generator: StackedGenerator, *, mapped: bool) -> StackedGenerator:
    return type(generator)(generator.widths, generator.latent_dim, generator.crop, mapped)


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running average of a model's weights and statistics toward it."""
    ours: Sequence[Tensor] = list(average.state_dict().values())
    with torch.no_grad():
        for mine, theirs in zip(ours, model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)
