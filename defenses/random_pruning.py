"""Only a random choice of the update's entries."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedaudit.core.client import ClientStep
from fedaudit.core.observation import DefenseFacts
from fedaudit.defenses.gradient_transforms import KeepRandom, Replayed
from fedaudit.defenses.on_update import on_sending, sparse_bytes


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
        if not 0 <= self.pruned < 1:
            raise ValueError(f"pruned must lie in [0, 1), not {self.pruned}")

    def __call__(self, step: ClientStep) -> ClientStep:
        """Prune what the step shares."""
        return on_sending(step, self.replay(1).mean)

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's gradients, with a choice of its own."""
        del count
        return Replayed(mean=(KeepRandom(1 - self.pruned, rescaled=self.rescaled),))

    def encoded_bytes(self, tensors: Mapping[str, Tensor]) -> int:
        """Of what is left the number and its place, four bytes each; or all numbers, if fewer."""
        return sparse_bytes(tensors)

    def facts(self) -> DefenseFacts:
        """The share is public, and the choice shows in the update."""
        return DefenseFacts("random_pruning", {"pruned": self.pruned, "rescaled": self.rescaled})
