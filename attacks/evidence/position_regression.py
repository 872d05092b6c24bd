"""One photo from a vision transformer whose gradient is known but for small errors.

As in `position_embedding`, W's gradient is Σ_p δ_p x_pᵀ, and the embedding of place p has δ_p. A
step of Adam leaves both with errors of some percent (`adam_magnitudes`), small learning rates with
the rounding of the weights, and a linear system multiplies them. So the photo is the likeliest
one, by the known numbers, each with its error, and by what photos are like (`photo_statistics`). δ
has errors, too: photo and δ are solved for in turn, each by a linear regression.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.conjugate_gradients import conjugate_gradients
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.photo_statistics import PhotoStatistics
from fedaudit.attacks.evidence.position_embedding import (
    channel_scale,
    is_in_range,
    patch_layers,
    places,
    stacks_of_places,
    take,
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
# one of SGD at 1e-4, and at 112 px one of Adam at 1e-3: 0.96, 0.82, 0.80 and 0.86 with these; 0.93,
# 0.81, 0.77 and 0.77 with 4 turns of 300, which fit a photo to a δ that is wrong yet; 0.95, 0.74,
# 0.78 and 0.85 with 20 steps a turn (a script that was not kept).
ROUNDS, STILL = 16, 1e-3
"""Turns of photo and δ, at most; root mean square by which the last of them moves pixels."""
PRODUCTS, TOLERANCE = 40, 1e-7
"""Of conjugate gradients for a photo, most steps in a turn, and relative length of what is left."""
SURELY = 100
"""The first of these where a variance is estimated."""
CHUNK = 64
"""Columns whose Gram matrices are summed at a time, for memory's sake."""
FLOOR = 1e-3
"""Least variance of a number's error, of the usual one: what is known better counts as much."""
UNSURE = 0.25
"""Variance of a pixel, of that before anything was known, above which the photo is a guess."""
OUTSIDE = 0.1
"""Root mean square by which pixels may leave [0, 1]."""
PROBES = 2
"""Random images by which that is estimated."""


def photo_by_regression(reading: Reading, known: Mapping[str, KnownEntries]) -> Tensor | None:
    """The likeliest photo `[1, C, H, W]`; None where this does not apply, or says too little.

    Args:
        reading: Of one image's update.
        known: Numbers of its gradient and their errors, by parameter.
    """
    if reading.count != 1 or reading.private:
        return None
    for name, layer in patch_layers(reading):
        number = places(reading.shape[1:], layer)
        stacks = [one for one in stacks_of_places(reading, name, number) if one[0] in known]
        scale = channel_scale(reading, layer) if stacks and name in known else None
        if scale is None:
            continue
        black, white = (part.double() for part in scale)
        patches = _Patches(layer, black, white, PhotoStatistics(black, reading.grayscale))
        gradient = _Numbers.of(known[name].numbers.flatten(1), known[name].errors.flatten(1))
        for stack in stacks:
            numbers, errors = known[stack[0]].numbers, known[stack[0]].errors
            upstream = _Numbers.of(take(numbers, stack, number).mT, take(errors, stack, number).mT)
            photo = None
            with suppress(RuntimeError):  # torch's LinAlgError: of numbers that are no gradient's
                photo = _regress(gradient, upstream, patches)
            if photo is not None and is_in_range(photo, OUTSIDE):
                return photo.clamp(0, 1).to(reading.like)
    return None


@dataclass(frozen=True)
class _Numbers:
    """A matrix of numbers, and what each counts: one over its error's variance; 0 if unknown."""

    values: Tensor
    weights: Tensor

    @classmethod
    def of(cls, numbers: Tensor, errors: Tensor) -> "_Numbers":
        values = numbers.double()
        known, variance = errors.isfinite(), errors.double().square()
        usual = float(variance[known].median()) if bool(known.any()) else 1.0
        counted = variance.clamp_min(max(FLOOR * usual, 1e-300))
        return cls(values, known / counted.where(known, torch.ones_like(counted)))

    def rows(self, which: Tensor) -> "_Numbers":
        return _Numbers(self.values[which], self.weights[which])


@dataclass(frozen=True)
class _Patches:
    """The patches `[P, F]` that a layer cuts photos into, and what enters it of black and white."""

    layer: nn.Conv2d
    black: Tensor
    white: Tensor
    prior: PhotoStatistics

    def cut(self, images: Tensor) -> Tensor:
        """The patches of an image `[1, C, H, W]`."""
        size = self.layer.kernel_size
        return F.unfold(images, size, stride=size)[0].mT

    def join(self, patches: Tensor) -> Tensor:
        """The image that these patches make up."""
        size = self.layer.kernel_size
        return F.fold(patches.mT[None], self.black.shape[2:], size, stride=size)

    def entering(self, photo: Tensor) -> Tensor:
        """The patches of a photo in [0, 1], as they enter the layer."""
        return self.cut(self.black + (self.white - self.black) * photo)


def _regress(gradient: _Numbers, upstream: _Numbers, patches: _Patches) -> Tensor | None:
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
        system, before = _System(scale * weights, gradient.values, delta, patches), photo
        photo, weights = system.solve(photo), given
        entering = patches.entering(photo)
        delta = _upstream_of(entering, gradient.values, given, upstream)
        missed = (gradient.weights * (gradient.values - delta @ entering).square())[held_out]
        scale = 1 / max(float(missed.mean()), 1e-3)  # errors may be smaller than is stated
        if float((photo - before).square().mean().sqrt()) < STILL:
            break
    sent = (gradient.weights * gradient.values.square())[held_out].sum()
    if not float(missed.sum()) < PREDICTED * float(sent) or float(missed.mean()) > MISFIT:
        return None
    last = _System(scale * given, gradient.values, delta, patches)
    return photo if last.variance() < UNSURE * patches.prior.pixel_variance else None


def _upstream_of(entering: Tensor, gradient: Tensor, weights: Tensor, sent: _Numbers) -> Tensor:
    """δ `[D, P]` by the gradient's numbers and its own, patches `[P, F]` given."""
    system = _grams(weights, entering)
    right = (weights * gradient) @ entering.mT + sent.weights * sent.values
    solution: Tensor = torch.linalg.solve(system + torch.diag_embed(sent.weights), right)
    return solution


def _grams(weights: Tensor, rows: Tensor) -> Tensor:
    """Σ_k w_nk r_pk r_qk, `[n, P, P]`, of weights `[n, K]` and rows `[P, K]`."""
    parts = [(rows * one[:, None]) @ rows.mT for one in torch.split(weights, CHUNK)]
    return torch.cat(parts)


class _System:
    """The normal equations of a photo, δ given; preconditioned by those of each patch's number."""

    def __init__(self, weights: Tensor, gradient: Tensor, delta: Tensor, patches: _Patches) -> None:
        self.patches, self.mean = patches, patches.prior.mean
        self.contrast = patches.cut(patches.white - patches.black)
        self.products = _grams(weights.mT, delta.mT)
        pull = delta.mT @ (weights * gradient) - self._weigh(patches.entering(self.mean))
        self.right = patches.join(self.contrast * pull)
        own = self.products * self.contrast.mT[:, :, None] * self.contrast.mT[:, None]
        own.diagonal(dim1=1, dim2=2).add_(1 / float(patches.prior.variances[0].median()))
        self.factor = torch.linalg.cholesky(own)

    def solve(self, start: Tensor) -> Tensor:
        """The likeliest photo, from one that is near."""
        return self.mean + self._invert(self.right, start - self.mean, PRODUCTS)

    def variance(self) -> float:
        """Of a pixel once all is known, on average: the trace of the inverse (Hutchinson 1990)."""
        generator, traces = torch.Generator().manual_seed(0), []
        for _ in range(PROBES):
            probe = torch.randint(2, self.mean.shape, generator=generator).to(self.mean) * 2 - 1
            traces.append(
                float((probe * self._invert(probe, torch.zeros_like(probe), SURELY)).mean())
            )
        return sum(traces) / PROBES

    def _weigh(self, patches: Tensor) -> Tensor:
        return torch.einsum("fpq,qf->pf", self.products, patches)

    def _apply(self, deviation: Tensor) -> Tensor:
        seen = self.contrast * self._weigh(self.contrast * self.patches.cut(deviation))
        return self.patches.join(seen) + self.patches.prior.unlikeliness(deviation)

    def _precondition(self, residual: Tensor) -> Tensor:
        right = self.patches.cut(residual).mT[:, :, None]
        return self.patches.join(torch.cholesky_solve(right, self.factor)[:, :, 0].mT)

    def _invert(self, right: Tensor, start: Tensor, steps: int) -> Tensor:
        (found,) = conjugate_gradients(
            lambda x: [self._apply(x[0])],
            [right],
            steps=steps,
            tolerance=TOLERANCE,
            start=[start],
            precondition=lambda x: [self._precondition(x[0])],
        )
        return found
