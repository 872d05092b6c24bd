"""What defenses do to gradients and to images, as functions that client and attacker share.

A client's update is a batch of one; an attacker who knows the defense puts many gradients of its
own through the same function, side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]
"""Gradients by parameter name, each `[M, …]` with M gradients side by side."""
Act = Callable[[Batch, torch.Generator], dict[str, Tensor]]
ImageAct = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
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

    each: tuple[Act, ...] = ()
    mean: tuple[Act, ...] = ()
    images: tuple[ImageAct, ...] = ()


@runtime_checkable
class Replays(Protocol):
    """A defense whose effect an attacker can compute on gradients or images of its own."""

    def replay(self, count: int) -> Replayed:
        """The functions, for an update that `count` images are behind."""
        ...


def in_order(acts: Sequence[Act], batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """All of `acts`, one after the other."""
    for act in acts:
        batch = act(batch, generator)
    return dict(batch)


def clip(bound: float) -> Act:
    """Scale each gradient to an L2 norm of at most `bound` over all its parameters."""

    def act(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        factor = (bound / (norms(batch) + 1e-6)).clamp(max=1)
        return {name: value * along(factor, value) for name, value in batch.items()}

    return act


@dataclass(frozen=True)
class Noise:
    """Independent noise of mean zero on every number: an act that an attacker can tell from others.

    What it does to a gradient is known on average only; an attacker who fits one draw fits a draw
    that the client did not make, so attacks leave it out or take its mean.

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

    def _unit(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Noise of variance 1; drawn on the CPU, so that every device gets the same."""
        if self.law == "gaussian":
            return torch.randn(like.shape, generator=generator).to(like)
        # A difference of two exponentials of mean b is Laplace of scale b, variance 2b².
        one, two = (torch.empty(like.shape).exponential_(generator=generator) for _ in "12")
        return ((one - two) / 2**0.5).to(like)


def keep_signs() -> Act:
    """The sign of every entry (signSGD)."""

    def act(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        return {name: value.sign() for name, value in batch.items()}

    return act


def keep_largest(share: float) -> Act:
    """The `share` of entries of largest magnitude, over all parameters together; others zero."""

    def act(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        flat = torch.cat([value.flatten(1) for value in batch.values()], 1).abs()
        number = max(1, round(share * flat.shape[1]))
        least = flat.topk(number, dim=1, sorted=False).values.amin(1)  # of those that are kept
        return {n: v * (v.abs() >= along(least, v)) for n, v in batch.items()}

    return act


def norms(batch: Batch) -> Tensor:
    """L2 norm of each gradient over all parameters, `[M]`."""
    return torch.stack([v.flatten(1).square().sum(1) for v in batch.values()]).sum(0).sqrt()


def entries(batch: Batch) -> int:
    """Numbers in one gradient."""
    return sum(value[0].numel() for value in batch.values())


def along(factor: Tensor, value: Tensor) -> Tensor:
    """`[M]` so that it broadcasts over `[M, …]`."""
    return factor.view(-1, *[1] * (value.dim() - 1))
