"""Photos to squares of one size."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def square(photo: Image.Image) -> Image.Image:
    """The largest centered square of a photo."""
    width, height = photo.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return photo.crop((left, top, left + side, top + side))


def to_tensor(photos: Sequence[Image.Image], size: int) -> Tensor:
    """Square photos, resized with antialiasing.

    Args:
        photos: Any mode; grey becomes three equal channels.
        size: Side in pixels.

    Returns:
        `[N, 3, size, size]` float32 in [0, 1].
    """
    resized = [
        p.convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for p in photos
    ]
    stacked = np.stack([np.asarray(p, dtype=np.float32) for p in resized])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).div(255).contiguous()
