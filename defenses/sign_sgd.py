"""Only the signs of the update."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedaudit.core.observation import DefenseFacts
from fedaudit.defenses.gradient_transforms import Replayed, keep_signs
from fedaudit.defenses.on_update import send_replayed


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Send the sign of every number, one bit each, in place of the number.

    signSGD (Bernstein et al., ICML 2018, arXiv 1802.04434). Guarantee: none, it is a heuristic.
    """

    __call__ = send_replayed

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients."""
        return Replayed(mean=(keep_signs(),))

    def encoded_bytes(self, tensors: Mapping[str, Tensor]) -> int:
        """One bit a number."""
        return -(-sum(value.numel() for value in tensors.values()) // 8)

    keeps_claims = True

    def facts(self) -> DefenseFacts:
        """There is nothing to set."""
        return DefenseFacts("sign", {})
