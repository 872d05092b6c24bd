"""Only a random choice of the update's entries."""

from dataclasses import dataclass

from fedaudit.defenses.gradient_transforms import KeepRandom, Replayed
from fedaudit.defenses.on_update import send_replayed, sparse_bytes
from fedaudit.defenses.settings import public_settings, require


@dataclass(frozen=True, kw_only=True)
class RandomPruning:
    """Send entries that are chosen at random in every round, zeros for all others.

    Subsampling (Konečný et al. 2016, arXiv 1610.05492): rescaled, the mean over many clients is
    that of the whole updates; Wangni et al. (NeurIPS 2018, arXiv 1710.09854) give likelier entries
    to larger numbers, which is not done here. Guarantee: none, it is a heuristic. What is sent is
    exact, the choice shows in the zeros, and a client that trains on the same photos for many
    rounds sends another choice in each.

    Args:
        pruned: Share of the entries that are set to zero, over all parameters together; in [0, 1).
        rescaled: Divide what is sent by 1 − `pruned`, so that the update is right on average.
    """

    pruned: float = 0.9
    rescaled: bool = True

    def __post_init__(self) -> None:
        require(0 <= self.pruned < 1, "pruned must lie in [0, 1)", self.pruned)

    __call__ = send_replayed
    encoded_bytes = staticmethod(sparse_bytes)
    keeps_claims = True
    facts = public_settings("random_pruning")

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, with a choice of its own."""
        return Replayed(mean=(KeepRandom(1 - self.pruned, rescaled=self.rescaled),))
