"""Distances between gradients, and scores of images. Pure functions."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cosine_distance(trial: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """1 − cosine over all parameters together, in [0, 2] (Geiping et al. 2020, eq. 4).

    Args:
        trial: Gradients of the trial images, a tensor a parameter.
        target: What the client shared, likewise.
    """
    pairs = list(zip(trial, target, strict=True))
    dot = torch.stack([(a * b).sum() for a, b in pairs]).sum()
    one = torch.stack([a.square().sum() for a, _ in pairs]).sum().sqrt()
    two = torch.stack([b.square().sum() for _, b in pairs]).sum().sqrt()
    return 1 - dot / (one * two + 1e-12)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighboring pixels, vertical plus horizontal; `[N, C, H, W]`."""
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return vertical + horizontal
