"""Images as an untrained network draws them: the network's weights are the variable."""

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

_SLOPE = 0.2
_GROUPS = 4


class UntrainedPrior:
    """A random U-Net that turns fixed noise into images; searching its weights is the prior.

    Deep image prior (Ulyanov et al., CVPR 2018): convolutions reach natural images long before
    noise. No auxiliary faces are needed, so a threat model that grants none allows it. `network`
    draws images in [0, 1] from `noise` `[count, noise_channels, H, W]`, and none depends on
    another.

    Args:
        shape: (C, H, W) of an image.
        generator: Draws the fixed noise and the first weights; on the CPU.
        count: How many images, each from noise of its own through the same weights.
        width: Channels of the finest scale; coarser ones have up to four times as many.
        noise_channels: Of the fixed noise.

    Raises:
        ValueError: A setting is out of range, or the image is smaller than 8 pixels a side.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        generator: torch.Generator,
        *,
        count: int = 1,
        width: int = 32,
        noise_channels: int = 16,
    ) -> None:
        channels, height, columns = shape
        scales = _scales(min(height, columns))
        if count < 1 or noise_channels < 1 or width < _GROUPS or width % _GROUPS:
            raise ValueError("count and noise_channels are at least 1, width a multiple of 4")
        self.noise = torch.rand(count, noise_channels, height, columns, generator=generator) - 0.5
        with torch.device("meta"):  # the constructors would draw from the global generator
            network = _UNet(noise_channels, channels, width, scales)
        self.network = _initialize(network.to_empty(device="cpu"), generator)

    def parameters(self) -> dict[str, Tensor]:
        """Copies of the first weights, leaves to search."""
        return {
            name: value.detach().clone().requires_grad_()
            for name, value in self.network.named_parameters()
        }

    def images(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """`[count, C, H, W]` in [0, 1] from the fixed noise, with these weights."""
        device = next(iter(parameters.values())).device
        images: Tensor = functional_call(self.network, dict(parameters), (self.noise.to(device),))
        return images


class _UNet(nn.Module):
    def __init__(self, entry: int, channels: int, width: int, scales: int) -> None:
        super().__init__()
        widths = [min(width << scale, 4 * width) for scale in range(scales + 1)]
        self.entry = _block(entry, width)
        self.down = nn.ModuleList([_block(a, b, stride=2) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([_block(b + a, a) for a, b in pairwise(widths)])
        self.last = nn.Conv2d(width, channels, 1)

    def forward(self, noise: Tensor) -> Tensor:
        maps = [self.entry(noise)]
        for block in self.down:
            maps.append(block(maps[-1]))
        x = maps.pop()
        for block in reversed(self.up):
            across = maps.pop()
            x = block(torch.cat([F.interpolate(x, across.shape[-2:]), across], 1))
        return torch.sigmoid(self.last(x))


def _block(a: int, b: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, stride, 1),
        nn.GroupNorm(_GROUPS, b),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(b, b, 3, 1, 1),
        nn.GroupNorm(_GROUPS, b),
        nn.LeakyReLU(_SLOPE),
    )


def _scales(side: int) -> int:
    """Halvings until 4 pixels are left, at most four."""
    if side < 8:
        raise ValueError("an untrained prior needs images of at least 8 pixels a side")
    return min(4, side.bit_length() - 3)


def _initialize(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights as He et al. (ICCV 2015) draw them, from `generator`."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=_SLOPE, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return network.requires_grad_(False)
