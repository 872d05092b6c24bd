"""QSGD: the update's numbers in a few levels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fedaudit.defenses.gradient_transforms import Quantize, Replayed
from fedaudit.defenses.on_update import send_replayed
from fedaudit.defenses.settings import public_settings, require


@dataclass(frozen=True, kw_only=True)
class QSGD:
    """Round every number at random to one of a few levels, right on average.

    Alistarh et al. (NeurIPS 2017, arXiv 1610.02132, section 3.1): v becomes ‖v‖·sign(v)·ξ, ξ one of
    the two multiples of 1/s next to |v|/‖v‖, with the odds that make its mean |v|/‖v‖. The norm is
    that of a bucket of consecutive entries, or of a whole parameter; in experiments the paper
    scales by the largest magnitude (recalled). Lossless coding of the levels changes nothing of
    what the server sees, and is left out. Guarantee: none, it is a heuristic, made to save traffic.
    The mean over rounds is the update, and the norms are exact.

    Args:
        levels: s; a number takes 2s + 1 values in its bucket; ≥ 1.
        bucket: Entries that share a norm; ≥ 1. None: all of a parameter.
        norm: "l2", or "max" (fewer zeros, less noise).
    """

    levels: int = 4
    bucket: int | None = 512
    norm: Literal["l2", "max"] = "l2"

    def __post_init__(self) -> None:
        require(self.levels >= 1, "levels must be ≥ 1", self.levels)
        require(self.bucket is None or self.bucket >= 1, "bucket must be ≥ 1 or None", self.bucket)
        require(self.norm in ("l2", "max"), "norm must be 'l2' or 'max'", repr(self.norm))

    __call__ = send_replayed
    keeps_claims = True
    facts = public_settings("qsgd")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, with draws of its own."""
        return Replayed(mean=(Quantize(self.levels, self.bucket, self.norm),))

    def encoded_bytes(self, tensors: Mapping[str, Tensor]) -> int:
        """Bits for 2s + 1 values a number, and four bytes a bucket for its norm."""
        bits = (2 * self.levels).bit_length()
        sizes = [value.numel() for value in tensors.values()]
        norms = sum(-(-size // (self.bucket or max(1, size))) for size in sizes)
        return -(-bits * sum(sizes) // 8) + 4 * norms
