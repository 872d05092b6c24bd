"""What the attacker may know: single facts, and named sets of them."""

from dataclasses import dataclass
from enum import StrEnum


class Knowledge(StrEnum):
    """One fact that a threat model may grant; `threat_models.EXPLANATIONS` says what each is."""

    MODEL = "model"
    BASIC = "basic"
    TRAINING = "training"
    AUXILIARY = "auxiliary"
    DEFENSE = "defense"
    LABELS = "labels"
    STATISTICS = "statistics"
    MANIPULATION = "manipulation"


@dataclass(frozen=True)
class ThreatModel:
    """A named set of facts. `A`–`H` follow Carletti et al. (USENIX Security 2025)."""

    name: str
    grants: frozenset[Knowledge]
    summary: str = ""
