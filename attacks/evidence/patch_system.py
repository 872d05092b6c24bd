"""A photo by the gradient of the layer that cuts it into patches, where δ of each patch is known.

W's gradient is Σ_p δ_p x_pᵀ, so that the likeliest photo, by known numbers of it and by what photos
are like (`photo_statistics`), is the solution of linear normal equations.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.conjugate_gradients import conjugate_gradients
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.photo_statistics import PhotoStatistics
from fedaudit.attacks.evidence.position_embedding import (
    Stack,
    channel_scale,
    is_in_range,
    patch_layers,
    places,
    stacks_of_places,
    take,
)
from fedaudit.attacks.evidence.reading import Reading

CHUNK = 64
"""Columns whose Gram matrices are summed at a time, for memory's sake."""
FLOOR = 1e-3
"""Least variance of a number's error, of the usual one: what is known better counts as much."""
PRODUCTS, TOLERANCE = 40, 1e-7
"""Of conjugate gradients for a photo, most steps in a turn, and relative length of what is left."""
SURELY = 100
"""The first of these where a variance is estimated."""
PROBES = 2
"""Random images by which that is estimated."""
RIDGE = 1e-12
"""On the Gram matrices of patches, relative to their mean diagonal."""


@dataclass(frozen=True)
class Numbers:
    """A matrix of numbers, and what each counts: one over its error's variance; 0 if unknown."""

    values: Tensor
    weights: Tensor

    @classmethod
    def of(cls, numbers: Tensor, errors: Tensor) -> "Numbers":
        """Of numbers and their standard errors, infinite where they are not known."""
        values = numbers.double()
        known, variance = errors.isfinite(), errors.double().square()
        usual = float(variance[known].median()) if bool(known.any()) else 1.0
        counted = variance.clamp_min(max(FLOOR * usual, 1e-300))
        return cls(values, known / counted.where(known, torch.ones_like(counted)))

    def rows(self, which: Tensor) -> "Numbers":
        """Some of the rows."""
        return Numbers(self.values[which], self.weights[which])


@dataclass(frozen=True)
class Patches:
    """The patches `[P, F]` that a layer cuts photos into, and what enters it of black and white."""

    layer: nn.Conv2d
    black: Tensor
    white: Tensor
    prior: PhotoStatistics

    def cut(self, images: Tensor) -> Tensor:
        """The patches of an image `[1, C, H, W]`."""
        size = self.layer.kernel_size
        return F.unfold(images, size, stride=size)[0].mT

    @cached_property
    def contrast(self) -> Tensor:
        """From black to white, in the numbers of each patch."""
        return self.cut(self.white - self.black)

    def join(self, patches: Tensor) -> Tensor:
        """The image that these patches make up."""
        size = self.layer.kernel_size
        return F.fold(patches.mT[None], self.black.shape[2:], size, stride=size)

    def entering(self, photo: Tensor) -> Tensor:
        """The patches of a photo in [0, 1], as they enter the layer."""
        return self.cut(self.black + (self.white - self.black) * photo)


def embedded_patches(
    reading: Reading, dtype: torch.dtype
) -> Iterator[tuple[str, list[Stack], int, Patches]]:
    """Each layer of patches, by its weight's name, where parameters may embed their places.

    With these parameters, and how many places there are.

    Args:
        reading: Of one image's update.
        dtype: Of what enters the layer.
    """
    for name, layer in patch_layers(reading):
        number = places(reading.shape[1:], layer)
        stacks = list(stacks_of_places(reading, name, number))
        scale = channel_scale(reading, layer) if stacks else None
        if scale is not None:
            black, white = (part.to(dtype) for part in scale)
            prior = PhotoStatistics(black, reading.grayscale)
            yield name, stacks, number, Patches(layer, black, white, prior)


Problem = tuple[Numbers, Numbers, Patches]
"""W's gradient `[D, F]`, δ `[D, P]`, and the patches behind them."""


def problems(reading: Reading, known: Mapping[str, KnownEntries]) -> Iterator[Problem]:
    """One for each layer of patches, and each parameter that may be an embedding of their places.

    Args:
        reading: Of one image's update.
        known: Numbers of its gradient and their errors, by parameter.
    """
    for name, stacks, number, patches in embedded_patches(reading, torch.float64):
        if name not in known:
            continue
        gradient = Numbers.of(known[name].numbers.flatten(1), known[name].errors.flatten(1))
        for stack in stacks:
            if stack[0] not in known:
                continue
            numbers, errors = known[stack[0]].numbers, known[stack[0]].errors
            upstream = Numbers.of(take(numbers, stack, number).mT, take(errors, stack, number).mT)
            yield gradient, upstream, patches


def first_photo(
    reading: Reading,
    known: Mapping[str, KnownEntries],
    solve: Callable[[Numbers, Numbers, Patches], Tensor | None],
    outside: float,
) -> Tensor | None:
    """The first photo `[1, C, H, W]` in [0, 1] that `solve` finds; None where it finds none.

    Args:
        reading: Of an update.
        known: Numbers of its gradient and their errors, by parameter.
        solve: Gives the photo of a problem, or None.
        outside: Root mean square by which pixels may leave [0, 1].
    """
    if reading.count != 1 or reading.private:
        return None
    for problem in problems(reading, known):
        photo = None
        with suppress(RuntimeError):  # torch's LinAlgError: of numbers that are no gradient's
            photo = solve(*problem)
        if photo is not None and is_in_range(photo, outside):
            return photo.clamp(0, 1).to(reading.like)
    return None


def upstream_of(
    entering: Tensor, gradient: Tensor, weights: Tensor, sent: Tensor, sent_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The likeliest δ `[D, P]`, and the Cholesky factors `[D, P, P]` of its normal equations.

    Args:
        entering: Patches `[P, F]`.
        gradient: Numbers of W's gradient `[D, F]`.
        weights: What they count.
        sent: Numbers of δ itself.
        sent_weights: What these count.
    """
    system = grams(weights, entering)
    own = system.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    system = system + torch.diag_embed(sent_weights + RIDGE * own)
    right = (weights * gradient) @ entering.mT + sent_weights * sent
    factor = torch.linalg.cholesky(system)
    return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0], factor


def grams(weights: Tensor, rows: Tensor) -> Tensor:
    """Σ_k w_nk r_pk r_qk, `[n, P, P]`, of weights `[n, K]` and rows `[P, K]`."""
    parts = [(rows * one[:, None]) @ rows.mT for one in torch.split(weights, CHUNK)]
    return torch.cat(parts)


class PhotoSystem:
    """The normal equations of a photo, δ given; preconditioned by those of each patch's number.

    Args:
        weights: Of W's gradient `[D, F]`.
        gradient: Its numbers.
        delta: δ `[D, P]`.
        patches: What photos are made up of.
    """

    def __init__(self, weights: Tensor, gradient: Tensor, delta: Tensor, patches: Patches) -> None:
        self.patches, self.mean = patches, patches.prior.mean
        self.products = grams(weights.mT, delta.mT)
        pull = delta.mT @ (weights * gradient) - self._weigh(patches.entering(self.mean))
        self.right = patches.join(patches.contrast * pull)
        own = self.products * patches.contrast.mT[:, :, None] * patches.contrast.mT[:, None]
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
        contrast = self.patches.contrast
        seen = contrast * self._weigh(contrast * self.patches.cut(deviation))
        return self.patches.join(seen) + self.patches.prior.unlikeliness(deviation)

    def precondition(self, residual: Tensor) -> Tensor:
        """A residual `[1, C, H, W]` by the inverse of each patch number's own block."""
        right = self.patches.cut(residual).mT[:, :, None]
        return self.patches.join(torch.cholesky_solve(right, self.factor)[:, :, 0].mT)

    def _invert(self, right: Tensor, start: Tensor, steps: int) -> Tensor:
        (found,) = conjugate_gradients(
            lambda x: [self._apply(x[0])],
            [right],
            steps=steps,
            tolerance=TOLERANCE,
            start=[start],
            precondition=lambda x: [self.precondition(x[0])],
        )
        return found
