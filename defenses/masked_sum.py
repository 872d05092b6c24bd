"""A sum of vectors of which the server sees the sum alone (Bonawitz et al., CCS 2017).

Every number is one of the ring of integers modulo 2³², held as int32, whose additions wrap around.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def masked_sum(vectors: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What clients send in place of their vectors, and what the server makes of it.

    Each client adds a mask that is uniform over the ring, and the sum of all masks is taken off the
    sum. How clients agree on masks, and recover those of clients who drop out, is not simulated:
    neither the sum nor what the server sees depends on it.

    Args:
        vectors: `[n]` int32, one a client.
        generator: Of the masks.

    Returns:
        `[K, n]` int32, uniform whatever the vectors are; and their sum `[n]` int32, exact.
    """
    plain = torch.stack(list(vectors))
    masks = torch.randint(-(2**31), 2**31, plain.shape, dtype=torch.int32, generator=generator)
    masked = plain + masks
    return masked, masked.sum(0, dtype=torch.int32) - masks.sum(0, dtype=torch.int32)


def encode(values: Iterable[Tensor], weight: int, *, clip: float, bits: int) -> Tensor:
    """Numbers as fixed-point numbers of the ring, times the client's weight, `[n]` int32.

    Args:
        values: In any shapes; clipped to ±`clip`.
        weight: Of the client.
        clip: Range.
        bits: Of one number, its sign among them: 2^(bits − 1) − 1 stands for `clip`.
    """
    flat = torch.cat([value.detach().flatten().double() for value in values]).clamp(-clip, clip)
    return (flat * (steps_of(bits) / clip)).round().long().mul(weight).to(torch.int32)


def decode(total: Tensor, *, clip: float, bits: int) -> Tensor:
    """The numbers that a sum of the ring stands for, `[n]` float64."""
    return total.double() * (clip / steps_of(bits))


def steps_of(bits: int) -> int:
    """The largest fixed-point number of so many bits."""
    return int(2 ** (bits - 1)) - 1
