"""A small vision transformer of timm's, and smooth images for it."""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 32
"""Pixels a side."""


def transformer(head: float = 0.02) -> nn.Module:
    """Timm's, small: 16 places of 8 × 8 pixels, 96 numbers a token; a head of that deviation."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIZE, patch_size=8, embed_dim=96, depth=2, num_classes=5
    )
    nn.init.normal_(network.get_parameter("head.weight"), std=head)
    return network.eval()


def drawn(seed: int = 1) -> Tensor:
    """A smooth image."""
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (SIZE, SIZE), mode="bicubic", align_corners=True).clamp(0, 1)
