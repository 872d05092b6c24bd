"""What the attacker may know: single facts, and named sets of them."""

from dataclasses import dataclass
from enum import StrEnum


class Knowledge(StrEnum):
    """One fact that a threat model may grant."""

    MODEL = "model"
    """Architecture, and the global parameters that the server broadcast."""
    BASIC = "basic"
    """Number of images in the update, their size, number of classes."""
    TRAINING = "training"
    """Optimizer, learning rate, local steps, batch size."""
    AUXILIARY = "auxiliary"
    """Faces, or a generator of faces, from elsewhere."""
    DEFENSE = "defense"
    """Which defense is in use, and its settings."""
    LABELS = "labels"
    """The labels of the attacked images."""
    STATISTICS = "statistics"
    """Batch-norm statistics or the distribution of the client's data."""
    MANIPULATION = "manipulation"
    """The server may send parameters of its choosing."""


@dataclass(frozen=True)
class ThreatModel:
    """A named set of facts. `A`–`H` follow Carletti et al. (USENIX Security 2025)."""

    name: str
    grants: frozenset[Knowledge]
    summary: str = ""
