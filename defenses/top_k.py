"""Only the largest entries of the update."""

from dataclasses import dataclass

from fedaudit.core.client import ClientStep
from fedaudit.core.observation import DefenseFacts
from fedaudit.defenses.gradient_transforms import Replayed, keep_largest
from fedaudit.defenses.on_update import on_sending, sparse_bytes, with_error_feedback
from fedaudit.defenses.settings import require, settings_of


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

    def __call__(self, step: ClientStep) -> ClientStep:
        """Prune what the step shares."""
        send = with_error_feedback if self.error_feedback else on_sending
        return send(step, self.replay(1).mean)

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, without what earlier rounds left out."""
        del count
        return Replayed(mean=(keep_largest(1 - self.pruned),))

    encoded_bytes = staticmethod(sparse_bytes)

    def facts(self) -> DefenseFacts:
        """The share is public, and shows in the update."""
        return DefenseFacts("top_k", settings_of(self))
