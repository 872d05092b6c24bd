"""What a search matches with in place of a head that stays on the device."""

from typing import Literal

from torch import Tensor

from fedaudit.attacks.evidence.unshared_layers import guess_local_layers, learn_local_layers
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.core.observation import ModelSpec

Unknown = Literal["joint", "learned", "guessed"]


def surrogate_head(
    evidence: Evidence, spec: ModelSpec, unknown: Unknown, restarts: int, source: str, seed: int
) -> dict[str, Tensor]:
    """Local layers of each restart, `[restarts, …]` by name; {} where the attack solves for them.

    Args:
        evidence: Of the update.
        spec: The network.
        unknown: How the layers are met, as in `MatchingAttack`.
        restarts: Each has layers of its own.
        source: Of the faces by which they are learned.
        seed: Of its own draws, so that a search that is resumed has the same.
    """
    if not evidence.private or (unknown == "joint" and evidence.solvable):
        return {}
    guess = guess_local_layers(spec, evidence.private, restarts, seed)
    guess = {name: value.to(evidence.like) for name, value in guess.items()}
    if unknown != "learned":
        return guess
    return learn_local_layers(
        evidence.model,
        guess,
        evidence.shape,
        source=source,
        grayscale=evidence.grayscale,
        seed=seed,
    )
