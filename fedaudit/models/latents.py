"""Distributions of generators' latent tensors."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedaudit.core.seeds import seed_torch

_DRAWN = 1024
"""Draws from which the mean and the spread of an unknown distribution are estimated."""
_FLOOR = 0.02
"""Least spread of a coordinate, as a part of the mean spread: constants stay divisible."""

Draw = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Latents:
    """The distribution of a generator's latent tensors.

    Attributes:
        shape: Of one latent, without the batch axis: `(100,)`, `(100, 1, 1)`, `(14, 512)` …
        draw: (count, generator) → `[count, *shape]`, on the CPU.
        mean: Of each coordinate: 0, or `[*shape]`.
        spread: Standard deviation of each coordinate: a number, or `[*shape]`.
    """

    shape: tuple[int, ...]
    draw: Draw
    mean: Tensor | float = 0.0
    spread: Tensor | float = 1.0

    @property
    def size(self) -> int:
        """How many numbers one latent has."""
        return math.prod(self.shape)

    def standardize(self, latent: Tensor) -> Tensor:
        """Latents in units of their own spread, so that one step size fits every generator."""
        return (latent - _on(self.mean, latent)) / _on(self.spread, latent)

    def restore(self, units: Tensor) -> Tensor:
        """The inverse of `standardize`."""
        return _on(self.mean, units) + _on(self.spread, units) * units


def normal(*shape: int) -> Latents:
    """The standard normal.

    >>> normal(100, 1, 1).draw(2, torch.Generator()).shape
    torch.Size([2, 100, 1, 1])
    """
    return Latents(shape, lambda count, noise: torch.randn(count, *shape, generator=noise))


def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> Latents:
    """Uniform in [low, high]."""

    def draw(count: int, noise: torch.Generator) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=noise)

    return Latents(shape, draw, (low + high) / 2, (high - low) / math.sqrt(12))


def truncated(*shape: int, at: float = 2.0) -> Latents:
    """Standard normal truncated to ±`at`: each coordinate is redrawn until it lies within."""

    def draw(count: int, noise: torch.Generator) -> Tensor:
        # By the inverse of the distribution function: as many random numbers whatever is drawn.
        bound = math.erf(at / math.sqrt(2))
        flat = torch.rand(count, *shape, generator=noise, dtype=torch.float64)
        return (math.sqrt(2) * torch.erfinv(bound * (2 * flat - 1))).clamp(-at, at).float()

    density = math.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * at * density / math.erf(at / math.sqrt(2))
    return Latents(shape, draw, 0.0, math.sqrt(variance))


def from_sampler(sample: Callable[..., Tensor]) -> Latents:
    """The distribution of a generator's own `sample`, its mean and spread estimated by drawing.

    Args:
        sample: `sample(count, generator) -> [count, …]`, or `sample(count)`, which draws from
            torch's global generator: it is seeded for the call, and set back after it.

    Raises:
        ValueError: It does not give finite tensors `[count, …]`.
    """
    draw = _with_generator(sample)
    noise = torch.Generator().manual_seed(0)
    draws = draw(_DRAWN, noise)
    if not isinstance(draws, Tensor) or draws.dim() < 2 or len(draws) != _DRAWN:
        what = list(draws.shape) if isinstance(draws, Tensor) else type(draws).__name__
        raise ValueError(f"sample({_DRAWN}, generator) gave {what}, not [{_DRAWN}, …]")
    if not draws.is_floating_point() or not draws.isfinite().all():
        raise ValueError("sample(count, generator) gave numbers that are not real or not finite")
    spread = draws.std(0)
    spread = spread.clamp(min=_FLOOR * float(spread.mean()))
    if not (spread > 0).all():
        raise ValueError("sample(count, generator) gives the same latent at every draw")
    return Latents(tuple(draws.shape[1:]), draw, draws.mean(0), spread)


def _with_generator(sample: Callable[..., Tensor]) -> Draw:
    """`sample` with a generator, whether it takes one or draws from the global state."""
    takes_generator = _takes_generator(sample)

    @torch.no_grad()
    def draw(count: int, noise: torch.Generator) -> Tensor:
        if takes_generator:
            return sample(count, noise)
        seed = int(torch.randint(2**31 - 1, (), generator=noise))
        with torch.random.fork_rng(devices=[]):
            seed_torch(seed)
            return sample(count)

    return draw


def _takes_generator(sample: Any) -> bool:
    if schema := getattr(sample, "schema", None):  # a scripted method; its first argument is self
        return len(schema.arguments) > 2
    try:
        return len(inspect.signature(sample).parameters) > 1
    except (TypeError, ValueError):
        return True


def _on(value: Tensor | float, like: Tensor) -> Tensor | float:
    return value.to(like) if isinstance(value, Tensor) else value
