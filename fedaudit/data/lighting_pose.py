"""Direction of light and head pose, estimated from the photo alone.

Both are rough, need no network and serve to *order* photos. On ORL, `pose` has a rank correlation
of 0.84 within people with the nose's place between the eyes as the landmark network of face-api
finds it, and `lighting` one of -0.07: the two do not stand in for each other. The extremes are
drawn by `benchmarks/heterogeneity.py --faces FILE`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.data.crop import LUMINANCE, resize

SIZE = 32
"""Pixels at which photos are judged, so that a study's image size hardly changes an order."""

_FACE = (0.22, 0.16)
"""Standard deviations, down and across, of the window that leaves out hair and background."""
_FINE, _COARSE, _LOCAL = 0.7, 3.0, 3.0
"""Pixels of 32: structure lies between the first two, contrast is evened out over the third."""
_WIDTH = 0.24
"""Standard deviation of the window about an axis of symmetry, as a share of the width."""
_REACH = 0.2
"""How far from the middle an axis may lie, as a share of the width."""
_SHARPNESS = 20.0
"""Inverse temperature at which the axes' correlations are weighed."""


def lighting(images: Tensor) -> Tensor:
    """How much brighter the right half of the face is, by the slope of a plane through it.

    Returns:
        `[N]` change of brightness over the width of `images [N, C, H, W]`, in units of the mean
        brightness; negative where the light falls on the left of the picture.
    """
    gray = _gray(images)
    across = _places()
    down = torch.exp(-0.5 * (across / _FACE[0]) ** 2)
    weights = down[:, None] * torch.exp(-0.5 * (across / _FACE[1]) ** 2)
    weights = weights / weights.sum()
    mean = (gray * weights).sum((1, 2))
    slope = (gray * weights * across).sum((1, 2)) / (weights * across**2).sum()
    return slope / mean.clamp_min(1e-6)


def pose(images: Tensor) -> Tensor:
    """Where the face's axis of symmetry lies, which moves as the head turns.

    Each upright axis is judged by the correlation of the photo with its mirror image about it,
    after shading is taken out and contrast evened; the result is the mean over axes, weighed by
    the softmax of their correlations. A face off the middle of its crop counts as turned.

    Args:
        images: `[N, C, H, W]` in [0, 1], cropped to the face; C is 1 or 3.

    Returns:
        `[N]` place of the axis as a share of the width, in [-0.2, 0.2]; negative where the face
        looks to the left of the picture.
    """
    gray = _gray(images)
    structure = _blur(gray, _FINE) - _blur(gray, _COARSE)
    structure = structure / (_blur(structure**2, _LOCAL) + 1e-4).sqrt()
    mirror_image, across = structure.flip(2), _places()
    reach = int(2 * SIZE * _REACH)  # an axis lies on a pixel or between two
    moves = range(-reach, reach + 1)
    likeness = []
    for move in moves:
        other = mirror_image.roll(move, 2)
        window = torch.exp(-0.5 * ((across - move / 2 / SIZE) / _WIDTH) ** 2)
        scale = (window * structure**2).sum((1, 2)) * (window * other**2).sum((1, 2))
        likeness.append((window * structure * other).sum((1, 2)) / scale.sqrt().clamp_min(1e-12))
    weights = torch.softmax(_SHARPNESS * torch.stack(likeness, 1), 1)
    return (weights * torch.tensor([move / 2 / SIZE for move in moves])).sum(1)


def _places() -> Tensor:
    """`[SIZE]` middles of the pixels, as shares of the width from the image's middle."""
    return (torch.arange(SIZE) + 0.5) / SIZE - 0.5


def _gray(images: Tensor) -> Tensor:
    """`[N, SIZE, SIZE]` luminance."""
    weights = torch.tensor(LUMINANCE if images.shape[1] == 3 else (1.0,))
    return (resize(images, SIZE) * weights[:, None, None]).sum(1)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """`[N, H, W]` → the same, by a Gaussian of `sigma` pixels."""
    half = int(3 * sigma)
    kernel = torch.exp(-0.5 * ((torch.arange(2 * half + 1) - half) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    frame = F.pad(images[:, None], (half,) * 4, mode="reflect")
    across = F.conv2d(frame, kernel[None, None, None])
    return F.conv2d(across, kernel[None, None, :, None])[:, 0]
