"""Only the largest entries of the update."""

from dataclasses import dataclass

from fedaudit.defenses.gradient_transforms import Replayed, keep_largest
from fedaudit.defenses.on_update import send_replayed, sparse_bytes
from fedaudit.defenses.settings import public_settings, require


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Send the entries of largest magnitude, zeros for all others.

    Gradient sparsification (Aji & Heafield, EMNLP 2017, arXiv 1704.05021). Guarantee: none, it is
    a heuristic.

    Args:
        pruned: Share of the entries that are set to zero, over all parameters together; in [0, 1).
        error_feedback: Remember what was left out, and add it to the update of the next round, as
            the paper does; otherwise it is lost.
    """

    pruned: float = 0.9
    error_feedback: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.pruned < 1, "pruned must lie in [0, 1)", self.pruned)

    __call__ = send_replayed
    encoded_bytes = staticmethod(sparse_bytes)
    keeps_claims = True
    facts = public_settings("top_k")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, without what earlier rounds left out."""
        return Replayed(mean=(keep_largest(1 - self.pruned),))
