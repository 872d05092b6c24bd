"""A style-based generator of faces, as `fedaudit prior train` makes them."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.models.stacked_generator import StackedGenerator

_SLOPE = 0.2
_EPSILON = 1e-8
_MET = 4
"""Of the 4 · 4 weights of a kernel, those that one pixel of the doubled map meets."""
_FAINT = 0.25
"""Scale of the first images: where tanh is steep."""


class StyleGenerator(StackedGenerator):
    """A small StyleGAN2 (Karras et al., CVPR 2020), without its noise: one latent, one image.

    A learned constant is where every image begins, and each stage's convolution is modulated by
    the style. The style is the latent itself: an encoder is trained along, and learns what a
    mapping network would; of that, the linear map is left. (Two layers of one after the encoder
    cost 0.5 dB on openpeople's p01 and p02 after 200 steps.)

    A stage's map alone does not say what is drawn, as later stages need the style, too: what stages
    1 and up take is the style and the map, as one vector `[N, latent_dim + C · H · W]`. A search in
    there moves both, as intermediate layer optimization does (Daras et al., ICML 2021).

    Args:
        widths: Channels of the feature maps between the stages: `[widths[0], 4, 4]`,
            `[widths[1], 8, 8]` …
        latent_dim: Width of the latent vector, and of the style.
        crop: Part of its image that is a face crop, as (top, bottom, left, right) in [0, 1].
        mapped: A linear map stands before the first stage.

    >>> generator = StyleGenerator((8, 4), latent_dim=5)
    >>> generator(torch.zeros(2, 5)).shape
    torch.Size([2, 3, 16, 16])
    >>> generator.features(torch.zeros(2, 5), 1).shape  # 5 + 8 · 4 · 4
    torch.Size([2, 133])
    """

    architecture = "style"

    def __init__(
        self,
        widths: Sequence[int],
        latent_dim: int,
        crop: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0),
        mapped: bool = False,
    ) -> None:
        super().__init__(widths, latent_dim, crop, mapped)
        blocks = [_Doubling(latent_dim, a, b, 4 << i) for i, (a, b) in enumerate(pairwise(widths))]
        last = _Drawing(latent_dim, widths[-1], self.side // 2)
        self.stages = nn.ModuleList([_Beginning(widths[0]), *blocks, last])


class ModulatedConv(nn.Module):
    """A convolution that doubles the side, its input channels weighed by the style.

    Karras et al. 2020, equations 1 and 3: the style weighs the input, and the output is divided by
    what the norm of the weights becomes by it. That is the same as weights of each image's own, in
    one convolution for all.

    Args:
        style_dim: Width of the style.
        inner: Channels that come in.
        outer: Channels that go out.
        demodulate: Divide by that norm, which keeps the scale of maps.
    """

    def __init__(self, style_dim: int, inner: int, outer: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.empty(inner, outer, 4, 4))
        self.bias = nn.Parameter(torch.zeros(outer))
        self.style = nn.Linear(style_dim, inner)
        nn.init.normal_(self.weight, 0, (_MET * inner) ** -0.5)
        nn.init.normal_(self.style.weight, 0, style_dim**-0.5)
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """`[N, inner, H, W]` and styles `[N, style_dim]` → `[N, outer, 2H, 2W]`."""
        scales = self.style(style)
        x = F.conv_transpose2d(x * scales[:, :, None, None], self.weight, stride=2, padding=1)
        if self.demodulate:
            squares = _MET * self.weight.square().mean((2, 3))
            x = x * torch.rsqrt(scales.square() @ squares + _EPSILON)[:, :, None, None]
        return x + self.bias[:, None, None]


class _Beginning(nn.Module):
    """Latents `[N, D, 1, 1]` → the style that they are, and the map where every image begins."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(width, 4, 4))

    def forward(self, z: Tensor) -> Tensor:
        return _pack(z.flatten(1), self.constant.expand(len(z), -1, -1, -1))


class _Doubling(nn.Module):
    """Style and map → style and a map of twice the side."""

    def __init__(self, style_dim: int, inner: int, outer: int, side: int) -> None:
        super().__init__()
        self.shape = (inner, side, side)
        self.conv = ModulatedConv(style_dim, inner, outer)

    def forward(self, state: Tensor) -> Tensor:
        style, x = _unpack(state, self.shape)
        return _pack(style, 2**0.5 * F.leaky_relu(self.conv(x, style), _SLOPE))  # scale is kept


class _Drawing(nn.Module):
    """Style and map → an image of twice the side in [-1, 1]."""

    def __init__(self, style_dim: int, inner: int, side: int) -> None:
        super().__init__()
        self.shape = (inner, side, side)
        self.conv = ModulatedConv(style_dim, inner, 3, demodulate=False)
        nn.init.normal_(self.conv.weight, 0, _FAINT * (_MET * inner) ** -0.5)

    def forward(self, state: Tensor) -> Tensor:
        style, x = _unpack(state, self.shape)
        image: Tensor = self.conv(x, style).tanh()
        return image


def _pack(style: Tensor, x: Tensor) -> Tensor:
    return torch.cat([style, x.flatten(1)], 1)


def _unpack(state: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    size = math.prod(shape)
    return state[:, :-size], state[:, -size:].view(-1, *shape)
