"""What defenses do to gradients and to images, as functions that client and attacker share.

A client's update is a batch of one; an attacker who knows the defense puts many gradients of its
own through the same function, side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

Batch = Mapping[str, Tensor]
"""Gradients by parameter name, each `[M, …]` with M gradients side by side."""
GradientTransform = Callable[[Batch, torch.Generator], dict[str, Tensor]]
ImageTransform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Images `[N, C, H, W]` in [0, 1] and labels, `[N]` int64 or `[N, K]` class probabilities, to the
images and labels that train in their place, of which there may be more; differentiable in images.
Images that are made of one photo stand side by side."""


@dataclass(frozen=True)
class Replayed:
    """A defense as functions of gradients and of images.

    Attributes:
        each: Applied to per-image gradients, in order.
        mean: Applied to mean gradients, in order.
        images: Applied to the photos before they train, in order. What they draw differs in every
            round: an attacker draws it anew, and cannot know what the client drew.
    """

    each: tuple[GradientTransform, ...] = ()
    mean: tuple[GradientTransform, ...] = ()
    images: tuple[ImageTransform, ...] = ()


@runtime_checkable
class Replays(Protocol):
    """A defense whose effect an attacker can compute on gradients or images of its own."""

    def replay(self, count: int) -> Replayed:
        """The functions, for an update that `count` images are behind."""


@runtime_checkable
class Conceals(Protocol):
    """A defense that puts images beside each photo which nobody but the client can make of it.

    Their labels are public all the same, as a function of whose photos they were made of, and a
    gradient shows them.
    """

    @property
    def copies(self) -> int:
        """Images in place of each photo, itself among them."""

    def labels_beside(self, own: Tensor, others: Tensor) -> Tensor:
        """Class probabilities `[copies, K]` of the images behind one photo, the photo first.

        `own [K]` are the photo's, `others [copies - 1, K]` those of the other photos behind each.
        """


@runtime_checkable
class Draws(Protocol):
    """A transform that draws: nobody has the client's draw, but everybody can compute its mean.

    An attacker who fits a draw of its own fits what the client did not do.
    """

    def expected(self, batch: Batch) -> dict[str, Tensor]:
        """The mean of what the transform makes of these gradients, over all draws."""


@runtime_checkable
class Encodes(Protocol):
    """A defense after which an update takes fewer bytes than its numbers would."""

    def encoded_bytes(self, tensors: Mapping[str, Tensor]) -> int:
        """Bytes of an update by parameter name, in the plain encoding that its paper counts."""


def in_order(
    transforms: Sequence[GradientTransform], batch: Batch, generator: torch.Generator
) -> dict[str, Tensor]:
    """All of `transforms`, one after the other."""
    for transform in transforms:
        batch = transform(batch, generator)
    return dict(batch)


def _without_draws(change: Callable[[Batch], dict[str, Tensor]]) -> GradientTransform:
    return lambda batch, generator: change(batch)


def clip(bound: float, order: Literal[1, 2] = 2) -> GradientTransform:
    """Scale each gradient to an L2 (or L1) norm of at most `bound` over all its parameters.

    One whose norm is no number, as of training that ran away, becomes zero: no factor bounds it.
    """

    def scaled(batch: Batch) -> dict[str, Tensor]:
        size = norms(batch, order)
        factor = (bound / (size + 1e-6)).clamp(max=1)
        return {
            name: torch.where(along(size.isfinite(), value), value * along(factor, value), 0.0)
            for name, value in batch.items()
        }

    return _without_draws(scaled)


@dataclass(frozen=True)
class Noise:
    """Independent noise of mean zero on every number.

    Attributes:
        std: Standard deviation of an entry. With `relative`, the noise's expected norm over all
            parameters, as a share of the gradient's.
        law: Gaussian, or Laplace of scale `std / √2`.
    """

    std: float
    relative: bool = False
    law: Literal["gaussian", "laplace"] = "gaussian"

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The gradients with a fresh draw on each."""
        scale = torch.full_like(next(iter(batch.values())).flatten(1)[:, 0], self.std)
        if self.relative:
            scale = scale * norms(batch) / entries(batch) ** 0.5
        return {n: v + along(scale, v) * self._unit(v, generator) for n, v in batch.items()}

    def expected(self, batch: Batch) -> dict[str, Tensor]:
        """The gradients themselves: the noise has mean zero."""
        return dict(batch)

    def _unit(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Noise of variance 1; drawn on the CPU, so that every device gets the same."""
        if self.law == "gaussian":
            return torch.randn(like.shape, generator=generator).to(like)
        # A difference of two exponentials of mean b is Laplace of scale b, variance 2b².
        one, two = (torch.empty(like.shape).exponential_(generator=generator) for _ in range(2))
        return ((one - two) / 2**0.5).to(like)


def keep_signs() -> GradientTransform:
    """The sign of every entry (signSGD)."""
    return _without_draws(lambda batch: {name: value.sign() for name, value in batch.items()})


def keep_largest(share: float) -> GradientTransform:
    """The `share` of entries of largest magnitude, over all parameters together; others zero."""

    def largest(batch: Batch) -> dict[str, Tensor]:
        flat = torch.cat([value.flatten(1) for value in batch.values()], 1).abs()
        number = max(1, round(share * flat.shape[1]))
        least = flat.topk(number, dim=1, sorted=False).values.amin(1)  # of those that are kept
        return {n: v * (v.abs() >= along(least, v)) for n, v in batch.items()}

    return _without_draws(largest)


def keep_middle(largest: float, smallest: float) -> GradientTransform:
    """Zeros for the share `largest` of entries of largest magnitude, and `smallest` of smallest.

    Both are shares of each parameter tensor, rounded to whole entries; one entry is always kept.
    """

    def kept(value: Tensor) -> Tensor:
        flat = value.flatten(1)
        above = min(round(largest * flat.shape[1]), flat.shape[1] - 1)
        below = min(round(smallest * flat.shape[1]), flat.shape[1] - 1 - above)
        order = flat.abs().argsort(dim=1, stable=True)[:, below : flat.shape[1] - above]
        return torch.zeros_like(flat).scatter(1, order, flat.gather(1, order)).view_as(value)

    return _without_draws(lambda batch: {name: kept(value) for name, value in batch.items()})


def keep_inputs(name: str, kept: Tensor) -> GradientTransform:
    """Only the columns `kept`, `[D]` bool, of the weight `name`, `[M, out, D]`; zeros in others."""
    return _without_draws(
        lambda batch: {n: v * kept.to(v) if n == name else v for n, v in batch.items()}
    )


@dataclass(frozen=True)
class KeepRandom:
    """A random choice of entries over all parameters together; zeros for all others.

    Attributes:
        share: Of the entries that are kept; exact to one entry, at least one.
        rescaled: Divide what is kept by the share, so that the mean is the gradient.
    """

    share: float
    rescaled: bool = False

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The gradients with a fresh choice for each."""
        count, size = len(next(iter(batch.values()))), entries(batch)
        number = max(1, round(self.share * size))
        choice = torch.rand(count, size, generator=generator).topk(number, 1, sorted=False).indices
        mask = torch.zeros(count, size).scatter(1, choice, self._factor)
        parts = torch.split(mask, [value[0].numel() for value in batch.values()], 1)
        return {
            name: value * part.view(value.shape).to(value)
            for (name, value), part in zip(batch.items(), parts, strict=True)
        }

    def expected(self, batch: Batch) -> dict[str, Tensor]:
        """The mean over random choices: the gradients, times the kept share if not rescaled."""
        return {name: value * (self.share * self._factor) for name, value in batch.items()}

    @property
    def _factor(self) -> float:
        return 1 / self.share if self.rescaled else 1.0


@dataclass(frozen=True)
class Quantize:
    """Magnitudes rounded at random, up or down, to `levels` even steps of their bucket's norm.

    Attributes:
        levels: s; a number becomes 0 or ±l/s of the norm, 1 ≤ l ≤ s.
        bucket: Entries of a parameter that share a norm, in order; None is all of them.
        norm: "l2", or "max", the largest magnitude.
    """

    levels: int
    bucket: int | None = None
    norm: Literal["l2", "max"] = "l2"

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The gradients, each rounded by draws of its own."""
        return {name: self._round(value, generator) for name, value in batch.items()}

    def expected(self, batch: Batch) -> dict[str, Tensor]:
        """The gradients themselves: the rounding is unbiased."""
        return dict(batch)

    def _round(self, value: Tensor, generator: torch.Generator) -> Tensor:
        flat = value.flatten(1)
        size = min(self.bucket or flat.shape[1], flat.shape[1])
        rows = F.pad(flat, (0, -flat.shape[1] % size)).view(len(flat), -1, size)
        order = 2 if self.norm == "l2" else float("inf")
        scale = torch.linalg.vector_norm(rows, order, dim=2, keepdim=True)
        place = rows.abs() / scale.clamp_min(torch.finfo(rows.dtype).tiny) * self.levels
        draws = torch.rand(rows.shape, generator=generator).to(rows)
        level = (place.floor() + (draws < place.frac())).clamp(max=self.levels)
        values: Tensor = rows.sign() * level * (scale / self.levels)
        return values.flatten(1)[:, : flat.shape[1]].view_as(value)


def norms(batch: Batch, order: Literal[1, 2] = 2) -> Tensor:
    """L2 (or L1) norm of each gradient over all parameters, `[M]`."""
    if order == 1:
        return torch.stack([v.flatten(1).abs().sum(1) for v in batch.values()]).sum(0)
    return torch.stack([v.flatten(1).square().sum(1) for v in batch.values()]).sum(0).sqrt()


def entries(batch: Batch) -> int:
    """Numbers in one gradient."""
    return sum(value[0].numel() for value in batch.values())


def along(factor: Tensor, value: Tensor) -> Tensor:
    """`[M]` so that it broadcasts over `[M, …]`."""
    return factor.view(-1, *[1] * (value.dim() - 1))
