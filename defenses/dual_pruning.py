"""Dual gradient pruning: neither the largest nor the smallest entries."""

from dataclasses import dataclass

from fedaudit.defenses.gradient_transforms import Replayed, keep_middle
from fedaudit.defenses.on_update import send_replayed, sparse_bytes
from fedaudit.defenses.settings import public_settings


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

    __call__ = send_replayed
    encoded_bytes = staticmethod(sparse_bytes)
    keeps_claims = True
    facts = public_settings("dual_pruning")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, without what earlier rounds left out."""
        return Replayed(mean=(keep_middle(self.largest, self.smallest),))
