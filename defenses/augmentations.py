"""Changes of images as data augmentation knows them, by name and strength, all differentiable.

Strengths run from 0 to 9 as in AutoAugment (Cubuk et al., CVPR 2019); ranges are those that Gao et
al. (CVPR 2021) search over. What has no derivative passes it straight through.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STRONGEST = 9
Operation = Callable[[Tensor, Tensor], Tensor]
"""Images `[N, C, H, W]` in [0, 1] and an amount `[N]` each → the same."""


@dataclass(frozen=True)
class Kind:
    """An augmentation operation and the range of its strength.

    Attributes:
        transform: Of images and amounts.
        least, most: Amount at strengths 0 and 9, linear in between.
        signed: The amount's sign is drawn for each image.
    """

    transform: Operation
    least: float = 0.0
    most: float = 0.0
    signed: bool = False


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear samples at `matrix [N, 2, 3]` · (x, y, 1), in [-1, 1] over the image; black beyond.

    The matrix maps places in the result to places in `images [N, C, H, W]`.
    """
    grid = F.affine_grid(matrix.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turned counterclockwise by `degrees [N]`; by quarter turns without resampling."""
    if bool((degrees == degrees[0]).all()) and float(degrees[0]) % 90 == 0:
        return torch.rot90(images, round(float(degrees[0]) / 90) % 4, (2, 3))
    angle = torch.deg2rad(degrees.to(images))
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1)
    return affine(images, rows.view(-1, 2, 3))


def shear_x(images: Tensor, amount: Tensor) -> Tensor:
    """Rows shifted by `amount [N]` times their distance from the middle."""
    return _move(images, (0, 1), amount)


def shear_y(images: Tensor, amount: Tensor) -> Tensor:
    """Columns shifted by `amount [N]` times their distance from the middle."""
    return _move(images, (1, 0), amount)


def translate_x(images: Tensor, share: Tensor) -> Tensor:
    """Shifted to the left by `share [N]` of the width."""
    return _move(images, (0, 2), 2 * share)


def translate_y(images: Tensor, share: Tensor) -> Tensor:
    """Shifted upward by `share [N]` of the height."""
    return _move(images, (1, 2), 2 * share)


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    """Times 1 + `amount [N]`, within [0, 1]."""
    return _away_from(torch.zeros_like(images), images, amount)


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Distance to the mean gray times 1 + `amount [N]`, within [0, 1]."""
    return _away_from(_gray(images).mean((1, 2, 3), keepdim=True), images, amount)


def color(images: Tensor, amount: Tensor) -> Tensor:
    """Distance of each pixel to its gray times 1 + `amount [N]`, within [0, 1]."""
    return _away_from(_gray(images), images, amount)


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Distance to a smoothed image times 1 + `amount [N]`, within [0, 1]."""
    kernel = images.new_ones(3, 3)
    kernel[1, 1] = 5
    channels = images.shape[1]
    kernel = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    frame = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return _away_from(F.conv2d(frame, kernel, groups=channels), images, amount)


def invert(images: Tensor, amount: Tensor) -> Tensor:
    """The negative image, 1 − x."""
    return 1 - images


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """The negative where a value reaches `threshold [N]`."""
    return torch.where(images >= _along(threshold, images), 1 - images, images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """The first `bits [N]` of eight, rounded to whole numbers; straight through."""
    step = 2 ** (8 - _along(bits, images).round())
    levels = ((images.detach() * 255 + 1e-4).floor() / step).floor() * step / 255
    return images + (levels - images).detach()


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel stretched over [0, 1]."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1 / 255)


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel's values replaced by their rank in [0, 1]; straight through."""
    flat = images.detach().flatten(2)
    below = torch.searchsorted(flat.sort(2).values.contiguous(), flat.contiguous())
    ranks = (below / max(1, flat.shape[2] - 1)).to(images).view_as(images)
    return images + (ranks - images).detach()


OPERATIONS: Mapping[str, Kind] = {
    "shear_x": Kind(shear_x, 0.0, 0.3, signed=True),
    "shear_y": Kind(shear_y, 0.0, 0.3, signed=True),
    "translate_x": Kind(translate_x, 0.0, 150 / 331, signed=True),
    "translate_y": Kind(translate_y, 0.0, 150 / 331, signed=True),
    "rotate": Kind(rotate, 0.0, 30.0),
    "color": Kind(color, 0.0, 0.5, signed=True),
    "contrast": Kind(contrast, 0.0, 0.5, signed=True),
    "sharpness": Kind(sharpness, 0.0, 0.5, signed=True),
    "brightness": Kind(brightness, 0.0, 0.5, signed=True),
    "posterize": Kind(posterize, 8.0, 4.0),
    "solarize": Kind(solarize, 256 / 255, 0.0),
    "autocontrast": Kind(autocontrast),
    "equalize": Kind(equalize),
    "invert": Kind(invert),
}


def _move(images: Tensor, entry: tuple[int, int], amounts: Tensor) -> Tensor:
    """`affine` by the identity but for one entry of the matrix, which is `amounts [N]`."""
    matrix = torch.eye(2, 3).to(amounts).repeat(len(amounts), 1, 1)
    matrix[:, entry[0], entry[1]] = amounts
    return affine(images, matrix)


def _away_from(middle: Tensor, images: Tensor, amount: Tensor) -> Tensor:
    return (middle + (1 + _along(amount, images)) * (images - middle)).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    """Luminance `[N, 1, H, W]` (ITU-R BT.601); the mean of channels where there are not three."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (weights * images).sum(1, keepdim=True)


def _along(amount: Tensor, images: Tensor) -> Tensor:
    return amount.to(images).view(-1, 1, 1, 1)
