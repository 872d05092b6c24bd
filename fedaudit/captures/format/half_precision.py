"""Tensors that a recording rounded to 16 bits, each with a power of two of its own.

A float16 alone loses what is below 6e-8, as gradients of early layers are; a bfloat16 keeps 8 bits
of a number. Scaled so that the largest number of a tensor fits just so, a float16 keeps 11 bits of
all numbers down to 2e-9 of the largest, and exact zeros.
"""

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

ROUNDING = 2.0**-11
"""The most by which a number changes, relative to it."""
LEAST, MOST = -120, 113
"""Exponents by which float32 can be scaled and back."""


def to_half(values: Tensor) -> tuple[Tensor, int] | None:
    """Numbers as float16 and the exponent e: they are these times 2^e, but for rounding.

    None where one of them is not finite.

    >>> import torch
    >>> half = to_half(torch.tensor([1e-9, -3e-9, 0.0]))
    >>> [f"{x:.3g}" for x in from_half(*half).tolist()]
    ['1e-09', '-3e-09', '0']
    """
    low, high = map(float, values.aminmax() if values.numel() else (0.0, 0.0))
    if not math.isfinite(low) or not math.isfinite(high):
        return None
    _, power = math.frexp(max(-low, high))
    exponent = min(max(power - 15, LEAST), MOST)
    return (values.float() * 2.0**-exponent).half(), exponent


def from_half(half: Tensor, exponent: int) -> Tensor:
    """The numbers, in float32."""
    return half.float().mul_(2.0**exponent)


class Restored(Mapping[str, Tensor]):
    """Tensors of which those with an exponent are 16-bit; each is restored when it is asked for."""

    def __init__(self, kept: Mapping[str, Tensor], exponents: Mapping[str, int]) -> None:
        self._kept, self._exponents = kept, exponents

    def __getitem__(self, name: str) -> Tensor:
        exponent = self._exponents.get(name)
        return self._kept[name] if exponent is None else from_half(self._kept[name], exponent)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)
