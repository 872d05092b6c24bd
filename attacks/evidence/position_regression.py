"""One photo from a vision transformer whose gradient is known but for small errors.

As in `position_embedding`, W's gradient is Σ_p δ_p x_pᵀ, and the embedding of place p has δ_p. A
step of Adam leaves both with errors of some percent (`adam_magnitudes`), small learning rates with
the rounding of the weights, and a linear system multiplies them. So the photo is the likeliest
one, by the known numbers, each with its error, and by what photos are like (`photo_statistics`). δ
has errors, too: photo and δ are solved for in turn, each by a linear regression.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.patch_system import (
    Numbers,
    Patches,
    PhotoSystem,
    first_photo,
    upstream_of,
)
from fedaudit.attacks.evidence.reading import Reading

LARGEST = 1e8
"""Numbers of all Gram matrices beyond which it is not tried: of 8 bytes each, several times."""
# A photo of p09 through timm's ViT-B/16 at 224 px has 1.3 after a step of Adam at 0.001; with 2 it
# was left to a search that ended in noise.
SPARE = 1.2
"""Channels of the embedding all of whose places are known, by places, from which on it is tried."""
HELD_OUT, PREDICTED = 0.1, 0.1
"""Share of the known numbers that is held out; relative square of them that may be missed."""
MISFIT = 10.0
"""Mean square of what is missed, in units of the stated errors, above which something else than one
photo and these errors is behind the gradient."""
# By a photo of p01 through timm's ViT-S, SSIM at 64 px after one step of Adam at 1e-4 and at 3e-5,
# one of SGD at 1e-4, and at 112 px one of Adam at 1e-3: 0.96, 0.82, 0.80 and 0.86 with these.
# Few turns of many steps fit a photo to a δ that is wrong yet.
ROUNDS, STILL = 16, 1e-3
"""Turns of photo and δ, at most; root mean square by which the last of them moves pixels."""
UNSURE = 0.25
"""Variance of a pixel, of that before anything was known, above which the photo is a guess."""
OUTSIDE = 0.1
"""Root mean square by which pixels may leave [0, 1]."""


def photo_by_regression(reading: Reading, known: Mapping[str, KnownEntries]) -> Tensor | None:
    """The likeliest photo `[1, C, H, W]`; None where this does not apply, or says too little.

    Args:
        reading: Of one image's update.
        known: Numbers of its gradient and their errors, by parameter.
    """
    return first_photo(reading, known, _regress, OUTSIDE)


def _regress(gradient: Numbers, upstream: Numbers, patches: Patches) -> Tensor | None:
    """The photo that explains W's gradient `[D, F]` by δ `[D, P]`, both but for their errors."""
    whole = (upstream.weights > 0).all(1)
    number = upstream.values.shape[1]
    if int(whole.sum()) < SPARE * number or max(gradient.values.shape) * number**2 > LARGEST:
        return None
    gradient, upstream = gradient.rows(whole), upstream.rows(whole)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(gradient.values.shape, generator=generator) < HELD_OUT
    held_out = drawn.to(whole.device) & (gradient.weights > 0)
    given = gradient.weights * ~held_out
    photo, delta, scale = patches.prior.mean, upstream.values, 1.0
    # At first δ is as it was sent, and its errors are part of the gradient's.
    blur = (patches.entering(photo).square().mean() / upstream.weights).sum(1, keepdim=True)
    weights = given / (1 + given * blur)
    for _ in range(ROUNDS):
        system, before = PhotoSystem(scale * weights, gradient.values, delta, patches), photo
        photo, weights = system.solve(photo), given
        entering = patches.entering(photo)
        delta, _ = upstream_of(entering, gradient.values, given, upstream.values, upstream.weights)
        missed = (gradient.weights * (gradient.values - delta @ entering).square())[held_out]
        scale = 1 / max(float(missed.mean()), 1e-3)  # errors may be smaller than is stated
        if float((photo - before).square().mean().sqrt()) < STILL:
            break
    sent = (gradient.weights * gradient.values.square())[held_out].sum()
    if not float(missed.sum()) < PREDICTED * float(sent) or float(missed.mean()) > MISFIT:
        return None
    last = PhotoSystem(scale * given, gradient.values, delta, patches)
    return photo if last.variance() < UNSURE * patches.prior.pixel_variance else None
