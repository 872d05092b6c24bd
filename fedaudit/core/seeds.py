"""Randomness that depends on what is computed, never on who computes it or when."""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def seed_for(*parts: object) -> int:
    """A 63-bit seed from the text of `parts`.

    >>> seed_for("cell", 1) == seed_for("cell", 1), seed_for("cell", 1) == seed_for("cell1")
    (True, False)
    """
    # A separator that text does not contain keeps ("a", "bc") apart from ("ab", "c").
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(*parts: object) -> torch.Generator:
    """A CPU generator seeded from the text of `parts`: usually a cell's key and a purpose."""
    return torch.Generator().manual_seed(seed_for(*parts))


def draw_seeded(make: Callable[[], T], seed: int) -> T:
    """What `make` draws from torch's global generator, decided by `seed`, which is put back after.

    For layers, whose first weights take no generator.
    """
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        return make()


def seed_torch(seed: int) -> None:
    """`torch.manual_seed`, without what it costs where there is no GPU.

    For each kind of GPU that is not in use it writes down the whole stack, a millisecond in all,
    to say later who asked for the seed.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
