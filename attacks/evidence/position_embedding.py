"""One photo from a vision transformer, exactly: its position embedding's gradient is all of δ.

Tokens are patches times W plus bias plus their place's embedding, so that the gradient of the
embedding of place p is δ_p itself, and that of W is Σ_p δ_p x_pᵀ: a linear system for the patches
x_p, in milliseconds (Lu et al., CVPR 2022, "APRIL", solve for them through the attention instead).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import deterministic
from fedaudit.attacks.evidence.reading import Reading

RESIDUAL = 1e-3
"""Share of the gradient of W that the patches may leave unexplained: float32 leaves 1e-5."""
LINEAR = 1e-4
"""Error up to which what comes before W is taken to scale and shift each channel."""


def photo_by_position(reading: Reading) -> Tensor | None:
    """The photo `[1, C, H, W]` behind one image's update; None where this does not apply.

    It applies to one image, to a network with one embedding a place, with no more places than the
    width of a token, before which nothing but a channel's scale and offset is applied.
    """
    if reading.count != 1 or reading.private:
        return None
    for name, layer in reading.model.named_modules():
        gradient = reading.target.get(f"{name}.weight")
        if gradient is None or not isinstance(layer, nn.Conv2d) or layer.groups > 1:
            continue
        if layer.kernel_size != layer.stride or any(layer._reversed_padding_repeated_twice):
            continue
        rows, columns = (n // k for n, k in zip(reading.shape[1:], layer.kernel_size, strict=True))
        patches = _solve(reading, gradient.flatten(1).double(), rows * columns)
        if patches is None:
            continue
        size = (rows * layer.kernel_size[0], columns * layer.kernel_size[1])
        if size != reading.shape[1:]:
            continue  # the last rows enter no patch
        inputs = F.fold(patches.T[None], size, layer.kernel_size, stride=layer.stride)
        return _pixels(reading, layer, inputs)
    return None


def _solve(reading: Reading, gradient: Tensor, places: int) -> Tensor | None:
    """Patches `[P, F]` from the embedding of places that explains W's gradient `[D, F]` best."""
    width = len(gradient)
    best, least = None, RESIDUAL * float(gradient.norm())
    if places > width:
        return None
    for value in reading.target.values():
        if value.dim() not in (2, 3) or value.shape[-1] != width:
            continue
        places_gradient = value.reshape(-1, width).double()
        if not places <= len(places_gradient) <= places + 4:
            continue  # a few tokens of classes may stand beside the patches
        for first in {len(places_gradient) - places, 0}:
            upstream = places_gradient[first : first + places].T
            patches = torch.linalg.lstsq(upstream, gradient, driver="gelsd").solution
            left = float((upstream @ patches - gradient).norm())
            if left < least:
                best, least = patches, left
    return best


def _pixels(reading: Reading, layer: nn.Module, inputs: Tensor) -> Tensor | None:
    """The image `[1, C, H, W]` that sends `inputs` to the layer, by the channels' scale."""
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
    return ((inputs - zero) / (one - zero)).clamp(0, 1).to(reading.like)
