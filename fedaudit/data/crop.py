"""Crop photos to squares and resize them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

LUMINANCE = (0.299, 0.587, 0.114)
"""What red, green and blue add to the brightness of a pixel (ITU-R BT.601)."""


def in_rgb(photo: Image.Image) -> Image.Image:
    """A photo in RGB: itself, where it is; Pillow's `convert` would copy all of its pixels."""
    return photo if photo.mode == "RGB" else photo.convert("RGB")


def square(photo: Image.Image) -> Image.Image:
    """The largest centered square of a photo."""
    width, height = photo.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return photo.crop((left, top, left + side, top + side))


def to_tensor(photos: Sequence[Image.Image], size: int) -> Tensor:
    """Square photos as `[N, 3, size, size]` float32 in [0, 1], resized with antialiasing."""
    squares = [p.convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for p in photos]
    return to_pixels(squares).float().div(255)


def to_pixels(photos: Sequence[Image.Image]) -> Tensor:
    """RGB photos of one size as `[N, 3, H, W]` uint8."""
    array = np.stack([np.asarray(photo) for photo in photos])
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def gray(images: Tensor) -> Tensor:
    """`[N, 1, H, W]`: the brightness of images `[N, 3, H, W]`."""
    return (images * images.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)


def resize(images: Tensor, size: int) -> Tensor:
    """`[N, C, H, W]` in [0, 1] → `[N, C, size, size]` in [0, 1], with antialiasing."""
    if images.shape[-2:] == (size, size):
        return images
    result = interpolate(images, (size, size), mode="bicubic", antialias=True)
    return result.clamp(0, 1)  # bicubic overshoots at edges
