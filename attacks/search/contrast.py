"""The contrast of an image that is known up to its contrast, from the earliest layer's gradient.

A body of convolutions without bias, each followed by a normalization, gives the same maps for x and
0.5 + c·(x − 0.5), but for the ε of the normalizations. Ten percent of contrast turn the gradient of
the first convolution by about 1e-5, which an update in single precision still shows (its error is
1e-6): in double precision a search over c finds it, if the image is right otherwise.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients, total
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.matching import Matching
from fedaudit.models.facenet import FaceNet
from fedaudit.models.module_copy import copy_detached

BLIND = 1e-3
"""A tenth of contrast moves the maps by less than this where the network is blind to it."""
EXPLAINED = 5e-5
"""Distance of the gradients' directions above which the image is not right otherwise."""
SWEEPS = 2
"""Times that every image of a batch is looked at."""
FINER = 4
"""Refinements of the grid of factors."""
FACTORS = tuple(2 ** (k / 6) for k in range(-12, 7))


def settle_contrast(
    evidence: Evidence, exact: FaceNet, decode: Callable[[Tensor], Tensor], pixels: Tensor
) -> Tensor:
    """The pixels with the contrast that explains the update best; all in double precision.

    `decode` makes images of pixels. Unchanged where the network sees contrast. Where no contrast
    explains the update, what lies beyond [0, 1] has its contrast lowered until it fits.
    """
    with torch.no_grad():
        seen, second = exact.features(decode(pixels)), exact.features(decode(_scale(pixels, 1.1)))
    shift = (F.normalize(seen, dim=1) - F.normalize(second, dim=1)).norm(dim=1)
    if float(shift.max()) > BLIND:
        return pixels
    model = copy_detached(exact)
    for parameter in model.parameters():
        parameter.requires_grad = True
    matching = Matching(replace(evidence, model=model).to(torch.float64))
    goal = F.normalize(matching.target[0].flatten(), dim=0)

    def share(image: int, factor: float) -> Gradients:
        images = decode(_scale(pixels[image : image + 1], factor))
        return matching.gradients(images, [image], differentiable=False)[0][:1]

    factors = [1.0] * len(pixels)
    shares = [share(i, 1.0) for i in range(len(pixels))]
    left = float("inf")
    for _ in range(SWEEPS if len(pixels) > 1 else 1):
        for i in range(len(pixels)):
            others = [one for k, one in enumerate(shares) if k != i]

            def distance(factor: float, i: int = i, others: list[Gradients] = others) -> float:
                gradient = total([*others, share(i, factor)])[0].flatten()
                return float((F.normalize(gradient, dim=0) - goal).norm())

            factors[i], left = _least(distance, factors[i])
            shares[i] = share(i, factors[i])
    if left > EXPLAINED:
        return torch.stack([_fit(one) for one in pixels])
    return torch.stack([_scale(one, c) for one, c in zip(pixels, factors, strict=True)])


def _scale(pixels: Tensor, factor: float) -> Tensor:
    return 0.5 + factor * (pixels - 0.5)


def _fit(pixels: Tensor) -> Tensor:
    return _scale(pixels, min(1.0, 0.5 / max(float((pixels - 0.5).abs().max()), 1e-12)))


def _least(distance: Callable[[float], float], around: float) -> tuple[float, float]:
    """The factor of least distance, and the distance: a grid of two octaves, then finer ones."""
    grid = [around * factor for factor in FACTORS]
    for _ in range(FINER + 1):
        values = [distance(factor) for factor in grid]
        best = min(range(len(grid)), key=values.__getitem__)
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        best_pair = grid[best], values[best]
        grid = [low + (high - low) * k / 6 for k in range(7)]
    return best_pair
