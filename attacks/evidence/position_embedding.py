"""One photo from a vision transformer, exactly: its position embedding's gradient is all of δ.

Tokens are patches times W plus bias plus their place's embedding, so that the gradient of the
embedding of place p is δ_p itself, and that of W is Σ_p δ_p x_pᵀ: a linear system for the patches
x_p, in milliseconds (Lu et al., CVPR 2022, "APRIL", solve for them through the attention instead).

Local training changes nothing of that: what enters W are pixels, the same in every step, and both
gradients are added up over the steps by the same factors, of momentum and learning rates alike.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import deterministic
from fedaudit.attacks.evidence.reading import Reading

RESIDUAL = 1e-3
"""Share of the gradient of W that the patches may leave unexplained: float32 leaves 1e-5."""
PIXEL_ERROR = 0.05
"""Standard error of a pixel, as the residual tells it, above which nothing is proven."""
CLASS_TOKENS = 4
"""Rows that an embedding may have beside those of patches."""
LINEAR = 1e-4
"""Error up to which what comes before W is taken to scale and shift each channel."""


def photo_by_position(reading: Reading) -> Tensor | None:
    """The photo `[1, C, H, W]` behind one image's update; None where this does not apply.

    It applies to one image, after one step or many of SGD; to a network with one embedding a place,
    with fewer places than the width of a token, before which nothing but a channel's scale and
    offset is applied. More equations than unknowns, that all hold, prove it.
    """
    if reading.count != 1 or reading.private:
        return None
    for name, layer in patch_layers(reading):
        gradient = reading.target[name].flatten(1).double()
        solved = _solve(reading, gradient, places(reading.shape[1:], layer))
        scale = channel_scale(reading, layer) if solved else None
        if solved is None or scale is None:
            continue
        patches, errors = solved
        contrast = float((scale[1] - scale[0]).abs().min())
        if float(errors.square().mean().sqrt()) <= PIXEL_ERROR * contrast:
            return pixels(reading, layer, patches[None])
    return None


def patch_layers(reading: Reading) -> Iterator[tuple[str, nn.Conv2d]]:
    """Convolutions that cut the whole image into patches, whose weight's gradient was sent."""
    for name, layer in reading.model.named_modules():
        if f"{name}.weight" not in reading.target or not isinstance(layer, nn.Conv2d):
            continue
        if layer.groups > 1 or layer.kernel_size != layer.stride:
            continue
        if any(layer._reversed_padding_repeated_twice):
            continue
        # Of other sizes, the last rows enter no patch.
        if not any(n % k for n, k in zip(reading.shape[1:], layer.kernel_size, strict=True)):
            yield f"{name}.weight", layer


def places(size: Sequence[int], layer: nn.Conv2d) -> int:
    """How many patches the layer cuts an image of this height and width into."""
    sides = zip(size, layer.kernel_size, strict=True)
    return math.prod(n // k for n, k in sides)


def _solve(reading: Reading, gradient: Tensor, places: int) -> tuple[Tensor, Tensor] | None:
    """Patches `[P, F]` from the embedding of places that explains W's gradient `[D, F]` best.

    And the standard error `[P]` of their numbers, as in any linear regression.
    """
    width = len(gradient)
    best, least = None, RESIDUAL * float(gradient.norm())
    if places >= width or not bool(gradient.isfinite().all()):
        return None
    for value in reading.target.values():
        for stack in stacks_of_places(value, width, places):
            upstream = stack.mT.double()
            if not bool(upstream.isfinite().all()):
                continue
            patches = torch.linalg.lstsq(upstream, gradient, driver="gelsd").solution
            left = float((upstream @ patches - gradient).norm())
            if left < least:
                noise = left / math.sqrt((width - places) * gradient.shape[1])
                spread = torch.linalg.pinv(upstream).square().sum(1).sqrt()
                best, least = (patches, noise * spread), left
    return best


def stacks_of_places(value: Tensor, width: int, places: int) -> Iterator[Tensor]:
    """The parts `[P, D]` of a parameter's gradient that may be of an embedding of each place.

    A few tokens of classes may stand beside the patches.
    """
    if value.dim() not in (2, 3) or value.shape[-1] != width:
        return
    rows = value.reshape(-1, width)
    if places <= len(rows) <= places + CLASS_TOKENS:
        for first in sorted({len(rows) - places, 0}, reverse=True):
            yield rows[first : first + places]


def pixels(reading: Reading, layer: nn.Conv2d, patches: Tensor) -> Tensor | None:
    """The images `[n, C, H, W]` whose patches `[n, P, F]` enter the layer.

    None where what comes before the layer is not a scale and an offset of each channel.
    """
    scale = channel_scale(reading, layer)
    if scale is None:
        return None
    inputs = F.fold(patches.mT, reading.shape[1:], layer.kernel_size, stride=layer.stride)
    zero, one = scale
    return ((inputs - zero) / (one - zero)).clamp(0, 1).to(reading.like)


def channel_scale(reading: Reading, layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """What enters the layer of a black and of a white image, `[1, C, H, W]` each.

    None where what comes before the layer is not a scale and an offset of each channel.
    """
    heard: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: heard.append(args[0].detach()))
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, *reading.shape, generator=generator).to(reading.like)
    try:
        with deterministic(reading.model), torch.no_grad():
            for image in (torch.zeros_like(noise), torch.ones_like(noise), noise):
                reading.model(image)
    finally:
        hook.remove()
    zero, one, response = heard
    if zero.shape != noise.shape or ((one - zero) * noise + zero - response).abs().max() > LINEAR:
        return None
    return zero, one
