"""Grad-CAM: which places of a picture carry a network's answer.

Selvaraju et al. (ICCV 2017). Forty lines of our own in place of captum's LayerGradCam, because the
answer here is a cosine of two passes (a face and its mirror image) to one person's template, and
captum would bring matplotlib along.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import AttackError

LEAST = 7
"""Places a side that a map must have to tell regions apart; Selvaraju's maps have 7 or 14."""


def deepest_map(network: nn.Module, images: Tensor, *, least: int = LEAST) -> nn.Module:
    """The last module whose output is a map of at least `least` × `least` places.

    The very last convolution of a network that halves often has one place, and no regions.

    Args:
        network: Takes `images [N, C, H, W]`.
        images: One is enough.
        least: Places a side.

    Raises:
        AttackError: There is none.
    """
    last: list[nn.Module] = []

    def look(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) >= least:
            last[:] = [module]

    handles = [m.register_forward_hook(look) for m in network.modules() if m is not network]
    try:
        with torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        raise AttackError(
            f"Grad-CAM: no map of the network has {least} places a side; use larger images"
        )
    return last[0]


def grad_cam(
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    score: Callable[[Tensor], Tensor],
) -> Tensor:
    """Heat `[N, H, W]`, ≥ 0: ReLU of the layer's map, its channels weighted by their gradient.

    The weight of a channel is the mean over places of ∂score/∂channel. Nothing is scaled to 1: a
    heat of zero everywhere says that nothing of the picture speaks for the answer.

    Args:
        network: Frozen or not; its parameters get no gradients.
        layer: One of its modules, whose output is a map `[N, C, h, w]`.
        images: `[N, C, H, W]`, as the network takes them.
        score: Output of the network → `[M]` answers; their sum is differentiated, so each may
            depend on its own images only.
    """
    maps: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _m, _i, output: maps.append(output))
    try:
        with torch.enable_grad():
            answers = score(network(images.detach().clone().requires_grad_()))
            (slope,) = torch.autograd.grad(answers.sum(), maps)
    finally:
        handle.remove()
    with torch.no_grad():
        heat = F.relu((slope.mean((2, 3), keepdim=True) * maps[0]).sum(1, keepdim=True))
        wide = F.interpolate(heat, images.shape[-2:], mode="bilinear", align_corners=False)
    return wide[:, 0]
