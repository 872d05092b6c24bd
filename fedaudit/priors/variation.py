"""Photos as they might have been taken: nearer, tilted, beside the middle, in another light."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ZOOM, _TURN, _SHIFT = 0.08, 0.12, 0.06
"""At most: of the side; in radians; of half the side."""
_LIGHT, _TINT = 0.25, 0.1
"""Deviations of the logarithm of the exponent of all channels, and of each."""
_EXPONENTS = (0.5, 2.0)
_DARKEST = 1e-4


def vary(photos: Tensor, noise: torch.Generator) -> Tensor:
    """Photos `[N, 3, S, S]` in [0, 1], each zoomed, turned, moved and toned at random."""
    count = len(photos)

    def even(*shape: int) -> Tensor:
        return 2 * torch.rand(count, *shape, generator=noise) - 1

    zoom, turn, shift = 1 + _ZOOM * even(), _TURN * even(), _SHIFT * even(2)
    along, across = zoom * turn.cos(), zoom * turn.sin()
    rows = (
        torch.stack([along, -across, shift[:, 0]], 1),
        torch.stack([across, along, shift[:, 1]], 1),
    )
    places = F.affine_grid(torch.stack(rows, 1), list(photos.shape), align_corners=False)
    moved = F.grid_sample(photos, places, padding_mode="border", align_corners=False)
    light = _LIGHT * torch.randn(count, 1, 1, 1, generator=noise)
    tint = _TINT * torch.randn(count, 3, 1, 1, generator=noise)
    return moved.clamp_min(_DARKEST) ** (light + tint).exp().clamp(*_EXPONENTS)
