"""Shamir's secret sharing: any `threshold` holders recover a secret, fewer learn nothing of it."""

from collections.abc import Mapping

import torch

FIELD = 2**521 - 1
"""A prime above every secret of 32 bytes."""


def random_bytes(count: int, generator: torch.Generator) -> bytes:
    """`count` random bytes."""
    drawn = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    return bytes(drawn.tolist())


def share(secret: bytes, threshold: int, holders: int, generator: torch.Generator) -> list[int]:
    """One share for each of `holders`, by number (Shamir, CACM 1979).

    Raises:
        ValueError: A threshold that is no number of holders.
    """
    if not 1 <= threshold <= holders:
        raise ValueError(f"threshold must lie in [1, {holders}], not {threshold}")
    drawn = [int.from_bytes(random_bytes(80, generator), "big") for _ in range(threshold - 1)]
    terms = [int.from_bytes(secret, "big"), *(number % FIELD for number in drawn)]
    return [
        sum(term * pow(holder + 1, power, FIELD) for power, term in enumerate(terms)) % FIELD
        for holder in range(holders)
    ]


def recover(shares: Mapping[int, int], size: int = 32) -> bytes:
    """The secret of `size` bytes from shares by holder's number: Lagrange interpolation at 0.

    Raises:
        ValueError: The shares are of no secret of that size: too few, or damaged.
    """
    secret = 0
    for holder, value in shares.items():
        above = below = 1
        for other in shares:
            if other != holder:
                above = above * (other + 1) % FIELD
                below = below * (other - holder) % FIELD
        secret += value * above * pow(below, FIELD - 2, FIELD)
    secret %= FIELD
    if secret.bit_length() > 8 * size:
        raise ValueError("these shares are not of one secret, or too few of them")
    return secret.to_bytes(size, "big")
