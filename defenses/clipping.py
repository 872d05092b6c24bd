"""Clipping of the whole update, without noise."""

from dataclasses import dataclass

from fedaudit.defenses.gradient_transforms import Replayed, clip
from fedaudit.defenses.on_update import send_replayed
from fedaudit.defenses.settings import public_settings, require


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """Scale the update to an L2 norm of at most `max_norm`.

    The first half of DP-FedAvg (McMahan et al., ICLR 2018, arXiv 1710.06963). Guarantee: none, it
    is a heuristic. It hides the update's length and nothing of its direction.

    Args:
        max_norm: Largest L2 norm over all parameters, in units of what is sent; > 0.
    """

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        require(self.max_norm > 0, "max_norm must be > 0", self.max_norm)

    __call__ = send_replayed
    keeps_claims = True
    facts = public_settings("clipping")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients."""
        return Replayed(mean=(clip(self.max_norm),))
