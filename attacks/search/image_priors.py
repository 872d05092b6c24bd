"""Scores of images that know nothing of the update: how unlike a photograph a dummy is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.evidence.photo_statistics import color_directions

# Over the 138 photos of p03 … p08 of OpenPeople (MIT) at 64 px (benchmarks/face_contrast.py); means
# of batches of 8 differ by 0.04 from each other, deviations by 0.02. benchmarks/subspace.py attacks
# p09 and p10.
FACE_MEAN, FACE_DEVIATION = (0.464, 0.370, 0.303), (0.262, 0.205, 0.186)
"""Of red, green and blue in aligned face crops."""

BELOW_HIGHLIGHT, FACE_HIGHLIGHT = 0.98, 0.856
"""Share of a photo's numbers that are less than its highlights, and these, of the same photos: by
them the contrast of another is told to 5 %, by mean and deviation to 8 % (p01 to p08, each person
by the others: benchmarks/face_contrast.py); of ORL's, which others took, to 16 and 18 %. The
brightest number tells it to 4 %, but of images that are not exact it is noise."""

LARGEST_SORTED = 1_000_000
"""Numbers of a batch whose highlights are looked for, evenly chosen: torch sorts 16 million."""

VARIATION, VARIATION_AT = 0.3, 1024
"""Weight of the total variation, and unknown numbers (a gray image of 32 px) of its images."""

ColorWeights = tuple[float, float, float]
COLOR_WEIGHTS: ColorWeights = (1.0, 3.0, 6.0)
"""Of brightness, red against blue, green against both: about the inverse ratios of how much photos
of p01 and p02 of OpenPeople vary in them; benchmarks/subspace.py reports on p09 and p10."""

# By four photos of ORL (s2, s13, s20, s40), whose grayness noise as long as the gradient hides
# (examples/defenses.toml), SSIM of `gan_inversion` from 0.90 to 0.95, LPIPS from 0.24 to 0.06, and
# 0.82 to 0.91 under QSGD; by a photo each of p01 and p02 of OpenPeople at 64 px
# (benchmarks/total_variation.py --people p01 p02 --photos 1 --noise 1), from 0.77 to 0.87. There
# 0.85 with 1, 1, 1, 0.83 with 1.5, 2, 3; `COLOR_WEIGHTS` give ORL 0.89, of too high a contrast:
# colors vanish where pixels are cut off at 0 and 1.
MATCHING_COLOR_WEIGHTS: ColorWeights = (1.0, 1.5, 2.0)
"""The same beside the distance of gradients, which pixels clamped to [0, 1] are searched by."""

FACE_COLORS = 0.3
"""Weight of `face_colors`, likewise."""

# Over the same photos (benchmarks/face_contrast.py): 0.126 at 32 px, 0.086 at 64, 0.064
# at 112, 0.044 at 224, deviations of 0.018 to 0.008.
FACE_VARIATION = 0.68
"""Total variation of a photo of a face, times the root of its pixels a side."""
HELD_POWER = 8
"""Of the total variation, by which its weight falls below that of photos (`share_above`)."""

ImagePrior = Callable[[Tensor], Tensor]
"""Images `[n, C, H, W]` in [0, 1] → penalty, a scalar."""


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighboring pixels, vertical plus horizontal; `[n, C, H, W]`."""
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return vertical + horizontal


def share_above(variation: Tensor, usual: float) -> Tensor:
    """Factor of the total variation's weight: 1 where images vary as `usual` or more, else near 0.

    It falls with a high power, so that images end with the variation of photos, and no less.

    >>> share_above(torch.tensor([0.04, 0.07, 0.08, 0.3]), 0.08).tolist()
    [0.00390625, 0.3436..., 1.0, 1.0]
    """
    return (variation / usual).pow(HELD_POWER).clamp(max=1.0)


def color_variation(images: Tensor, weights: ColorWeights) -> Tensor:
    """The total variation of brightness and of two color differences, so weighed.

    Photos vary less in color than in brightness, which the variation of each channel does not
    mind. Of one channel it is its total variation.

    Args:
        images: `[n, C, H, W]`.
        weights: Of brightness, red against blue, green against both.

    Returns:
        A scalar.
    """
    if images.shape[1] != 3:
        return total_variation(images)
    colors = color_directions(images) * images.new_tensor(weights)[:, None]
    return total_variation(torch.einsum("kc,nchw->nkhw", colors, images))


def usual_variation(unknowns: int) -> float:
    """The weight of the total variation that suits images of so many unknown numbers.

    The angle between gradients, which it stands beside, is turned by an error in one of d numbers
    by about 1/√d, and the mean of the variation by 1/d: they stay in proportion where the weight
    grows as √d. `benchmarks/total_variation.py` measures it.
    """
    return VARIATION * math.sqrt(unknowns / VARIATION_AT)


def face_colors(images: Tensor) -> Tensor:
    """How far the mean and deviation of a batch's colors are from those of faces, squared.

    Batch norm in training mode takes the contrast of a batch away before any layer whose inputs are
    known, and nearly its colors' offsets, so that hardly anything but a prior gives them back.

    Args:
        images: `[n, C, H, W]`; their channels are red, green and blue, or all like brightness.

    Returns:
        A scalar, summed over the channels.
    """
    mean, deviation = images.new_tensor(FACE_MEAN), images.new_tensor(FACE_DEVIATION)
    if images.shape[1] != len(mean):
        mean, deviation = mean.mean(), deviation.mean()
    own = images.transpose(0, 1).flatten(1)
    apart = (own.mean(1) - mean).square() + (own.std(1) - deviation).square()
    return apart.sum()


def exposure(images: Tensor, center: float = 0.0) -> float:
    """The factor around `center` that gives `[n, C, H, W]` the highlights of photos of faces."""
    numbers = images.flatten().float()
    numbers = numbers[:: -(-len(numbers) // LARGEST_SORTED)]
    highlight = float(numbers.quantile(BELOW_HIGHLIGHT))
    return (FACE_HIGHLIGHT - center) / max(highlight - center, 1e-3)


@dataclass(frozen=True)
class WithinRange:
    """Mean square by which pixels leave [0, 1], for movers that are not kept inside.

    Spans can leave brightness and contrast open: what is cut off at the end then spoils what they
    fit.

    Args:
        weight: Of the mean square.
    """

    weight: float = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        """A scalar for images of any shape."""
        return self.weight * (images - images.clamp(0, 1)).square().mean()


@dataclass(frozen=True, kw_only=True)
class GroupConsistency:
    """Restarts should agree: distance of each to their mean after registration.

    Yin et al. (CVPR 2021, eq. 11–12). Restarts often find the same image shifted by some pixels, so
    each is first registered to the mean: here by the whole-pixel translation with the highest
    cross-correlation (the paper uses RANSAC flow).

    Args:
        weight: Of the penalty.
        reach: Largest shift in pixels, along each axis.
    """

    weight: float = 0.01
    reach: int = 4

    def __call__(self, images: Tensor) -> Tensor:
        """Trials `[R, n, C, H, W]` of the same batch → a penalty for each restart, `[R]`."""
        if len(images) < 2:
            return images.new_zeros(len(images))
        originals = images.detach()
        consensus = originals.mean(0)
        registration = torch.stack([self.register(consensus, one) for one in originals]).mean(0)
        targets = torch.stack([self.register(one, registration) for one in originals])
        return self.weight * (images - targets).square().flatten(1).mean(1)

    def register(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """`moving`, each image rolled to where it correlates best with `fixed`; `[n, C, H, W]`."""
        one, two = (x - x.mean((2, 3), keepdim=True) for x in (fixed, moving))
        product = torch.fft.rfft2(one) * torch.fft.rfft2(two).conj()
        correlation = torch.fft.irfft2(product.sum(1), s=one.shape[2:])
        height, width = one.shape[2:]
        rows = _near(height, self.reach, correlation)
        columns = _near(width, self.reach, correlation)
        near = correlation[:, rows][:, :, columns].flatten(1).argmax(1)
        shifts = [(int(rows[k // len(columns)]), int(columns[k % len(columns)])) for k in near]
        return torch.stack(
            [image.roll(shift, (1, 2)) for image, shift in zip(moving, shifts, strict=True)]
        )


def _near(size: int, reach: int, like: Tensor) -> Tensor:
    """Indices of the shifts −reach … reach in a circular correlation of `size`."""
    reach = min(reach, (size - 1) // 2)
    return torch.arange(-reach, reach + 1, device=like.device) % size
