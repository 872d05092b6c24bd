"""Dual gradient pruning: neither the largest nor the smallest entries."""

from dataclasses import dataclass

from fedaudit.core.client import ClientStep
from fedaudit.core.observation import DefenseFacts
from fedaudit.defenses.gradient_transforms import Replayed, keep_middle
from fedaudit.defenses.on_update import on_sending, sparse_bytes, with_error_feedback
from fedaudit.defenses.settings import settings_of


@dataclass(frozen=True, kw_only=True)
class DualPruning:
    """Send the entries of middling magnitude, zeros for the largest and for the smallest.

    Dual gradient pruning (Xue et al., AAAI 2024, arXiv 2401.16687): large entries tell an attacker
    most, small ones cost most traffic; what is left out is remembered and added to the next update.
    That shares are of each layer (here of each parameter) is recalled, the defaults are ours; the
    paper's variant in which all clients send the same places is left out. Guarantee: none, it is a
    heuristic. The places of what was left out show, and error feedback sends it in later rounds.

    Args:
        largest: Share k1 of a parameter's entries, of largest magnitude, that are set to zero; ≥ 0.
        smallest: Share k2, of smallest magnitude; ≥ 0. Both together are < 1; one entry of each
            parameter is always sent.
        error_feedback: Remember what was left out, and add it to the update of the next round.
    """

    largest: float = 0.05
    smallest: float = 0.75
    error_feedback: bool = True

    def __post_init__(self) -> None:
        if self.largest < 0 or self.smallest < 0 or self.largest + self.smallest >= 1:
            raise ValueError(
                "largest and smallest must be ≥ 0 and together < 1, "
                f"not {self.largest} and {self.smallest}"
            )

    def __call__(self, step: ClientStep) -> ClientStep:
        """Prune what the step shares."""
        send = with_error_feedback if self.error_feedback else on_sending
        return send(step, self.replay(1).mean)

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, without what earlier rounds left out."""
        del count
        return Replayed(mean=(keep_middle(self.largest, self.smallest),))

    encoded_bytes = staticmethod(sparse_bytes)

    def facts(self) -> DefenseFacts:
        """The shares are public, and the places show in the update."""
        return DefenseFacts("dual_pruning", settings_of(self))
