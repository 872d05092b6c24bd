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

from fedaudit.attacks.evidence.deterministic_mode import deterministic
from fedaudit.attacks.evidence.reading import Reading

RESIDUAL = 1e-3
"""Share of the gradient of W that the patches may leave unexplained: float32 leaves 1e-5."""
PIXEL_ERROR = 0.05
"""Standard error of a pixel, as the residual tells it, above which nothing is proven."""
CLASS_TOKENS = 4
"""Rows, as of tokens of classes, that an embedding may have beside those of patches."""
LINEAR = 1e-4
"""Error up to which what comes before W is taken to scale and shift each channel."""

Stack = tuple[str, int]
"""A parameter, and the first of its rows, of which there is one a place."""


def photo_by_position(reading: Reading) -> Tensor | None:
    """The photo `[1, C, H, W]` behind one image's update; None where this does not apply.

    It applies to one image, after one step or many of SGD; to a network with one embedding a place,
    with fewer places than the width of a token, before which nothing but a channel's scale and
    offset is applied. More equations than unknowns, that all hold, prove it.
    """
    if reading.count != 1 or reading.private:
        return None
    for name, layer in patch_layers(reading):
        number = places(reading.shape[1:], layer)
        stacks = stacks_of_places(reading, name, number)
        solved = _solve(reading, reading.target[name].flatten(1).double(), stacks, number)
        scale = channel_scale(reading, layer) if solved else None
        if solved is None or scale is None:
            continue
        patches, errors = solved
        contrast = float((scale[1] - scale[0]).abs().min())
        photo = _pixels(layer, patches[None], scale)
        exact = float(errors.square().mean().sqrt()) <= PIXEL_ERROR * contrast
        if exact and is_in_range(photo, PIXEL_ERROR):
            return photo.clamp(0, 1).to(reading.like)
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


def _solve(
    reading: Reading, gradient: Tensor, stacks: Sequence[Stack], places: int
) -> tuple[Tensor, Tensor] | None:
    """Patches `[P, F]` from the embedding of places that explains W's gradient `[D, F]` best.

    And the standard error `[P]` of their numbers, as in any linear regression.
    """
    width = len(gradient)
    best, least = None, RESIDUAL * float(gradient.norm())
    if places >= width or not bool(gradient.isfinite().all()):
        return None
    for stack in stacks:
        upstream = take(reading.target[stack[0]], stack, places).mT.double()
        if not bool(upstream.isfinite().all()):
            continue
        patches = torch.linalg.lstsq(upstream, gradient, driver="gelsd").solution
        left = float((upstream @ patches - gradient).norm())
        if left < least:
            noise = left / math.sqrt((width - places) * gradient.shape[1])
            spread = torch.linalg.pinv(upstream).square().sum(1).sqrt()
            best, least = (patches, noise * spread), left
    return best


def stacks_of_places(reading: Reading, name: str, places: int) -> list[Stack]:
    """What may be an embedding of each place that the weight `name` makes tokens of."""
    width = len(reading.target[name])
    stacks = []
    for other, value in reading.target.items():
        if value.dim() not in (2, 3) or value.shape[-1] != width:
            continue
        rows = value.numel() // width
        if places <= rows <= places + CLASS_TOKENS:
            stacks += [(other, first) for first in sorted({rows - places, 0}, reverse=True)]
    return stacks


def parameters_of_places(reading: Reading) -> set[str]:
    """The weights of patches, and what may be an embedding of their places."""
    found: set[str] = set()
    for name, layer in patch_layers(reading):
        stacks = stacks_of_places(reading, name, places(reading.shape[1:], layer))
        if stacks:
            found |= {name, *(parameter for parameter, _ in stacks)}
    return found


def take(values: Tensor, stack: Stack, places: int) -> Tensor:
    """The rows `[P, D]` of a parameter, or of numbers like it, that a stack names."""
    return values.reshape(-1, values.shape[-1])[stack[1] : stack[1] + places]


def is_in_range(photo: Tensor, outside: float) -> bool:
    """Whether pixels leave [0, 1] by so much at most, as a root mean square.

    Where the embedding's gradient was scaled by another factor than W's, as by clipping each of
    them, what follows is the photo at another contrast.
    """
    return float((photo - photo.clamp(0, 1)).square().mean().sqrt()) <= outside


def _pixels(layer: nn.Conv2d, patches: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
    """The images `[n, C, H, W]` whose patches `[n, P, F]` enter the layer."""
    zero, one = scale
    inputs = F.fold(patches.mT, zero.shape[2:], layer.kernel_size, stride=layer.stride)
    images: Tensor = (inputs - zero) / (one - zero)
    return images


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
    if len(heard) != 3:  # not used, or more than once
        return None
    zero, one, response = heard
    if zero.shape != noise.shape or ((one - zero) * noise + zero - response).abs().max() > LINEAR:
        return None
    return zero, one
