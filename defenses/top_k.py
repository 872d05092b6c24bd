"""Only the largest entries of the update."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedaudit.core.client import ClientStep
from fedaudit.core.observation import DefenseFacts
from fedaudit.defenses.gradient_transforms import Replayed, keep_largest
from fedaudit.defenses.on_update import on_sending, sparse_bytes, with_error_feedback


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
        if not 0 <= self.pruned < 1:
            raise ValueError(f"pruned must lie in [0, 1), not {self.pruned}")

    def __call__(self, step: ClientStep) -> ClientStep:
        """Prune what the step shares."""
        send = with_error_feedback if self.error_feedback else on_sending
        return send(step, self.replay(1).mean)

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, without what earlier rounds left out."""
        del count
        return Replayed(mean=(keep_largest(1 - self.pruned),))

    def encoded_bytes(self, tensors: Mapping[str, Tensor]) -> int:
        """Of what is left the number and its place, four bytes each; or all numbers, if fewer."""
        return sparse_bytes(tensors)

    def facts(self) -> DefenseFacts:
        """The share is public, and shows in the update."""
        settings = {"pruned": self.pruned, "error_feedback": self.error_feedback}
        return DefenseFacts("top_k", settings)
