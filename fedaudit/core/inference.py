"""What was inferred of clients' data without rebuilding it: membership and properties."""

from dataclasses import dataclass
from typing import Literal

from fedaudit.core.measures import Rate

Level = Literal["image", "person"]
"""What is asked of a client's data. image: whether this very photo trained. person: whether the
person did, of whom *other* photos are at hand. Both against people who are in nobody's data."""


@dataclass(frozen=True)
class Recall:
    """True positives at a false-positive rate.

    Attributes:
        fpr: Share of pairs of a client and somebody who is no member that is accepted.
        tpr: Members that are recognized at it, with an interval over people; None where there are
            too few pairs for so small a rate.
    """

    fpr: float
    tpr: Rate | None


@dataclass(frozen=True)
class MembershipScore:
    """How well one attack tells who is in a client's data.

    Attributes:
        attack: Its name.
        auc: How often a member scores above somebody who is none; 0.5 is chance.
        shuffled: Of the same scores, the AUC that 97.5 % of shuffled memberships stay below.
        p_value: Share of shuffled memberships that do as well (randomization test over people).
        p_adjusted: Holm over all attacks and levels of the study's membership tests.
        recalls: At 0.1 % and 1 %, and at the smallest rate that the data can give.
        roc: Points (FPR, TPR), from (0, 0) to (1, 1).
    """

    attack: str
    level: Level
    auc: float
    shuffled: float
    p_value: float
    recalls: tuple[Recall, ...]
    roc: tuple[tuple[float, float], ...]
    p_adjusted: float = 1.0


@dataclass(frozen=True)
class PropertyScore:
    """How well shadow clients tell which clients' photos have a property more often.

    Attributes:
        property: Its name.
        told, true: Of each client the share that was told (only the order counts) and the true one.
        correlation: Rank correlation (Spearman) of the two; 0 is chance.
        p_value: Share of the orders of the clients that fit as well (exact or randomized).
        p_adjusted: Holm over all properties and federations of the study.
    """

    property: str
    told: tuple[float, ...]
    true: tuple[float, ...]
    correlation: float
    p_value: float
    p_adjusted: float = 1.0


@dataclass(frozen=True)
class Membership:
    """Membership at the clients of one federation, as its server infers it.

    Attributes:
        scenario, defense: By their labels in the study.
        clients, rounds: Of the federation, and the rounds that were watched.
        members, outsiders: People in a client's data, and people in nobody's.
        scores: By attack and level.
        control: p-value of the same test where half of the outsiders are called members: small if
            the pipeline tells apart people whom nobody trained on. None: too few of them.
        reason: Why nothing was tested; "" where it was.
        properties: What the clients' photos have in common, as told from the same rounds.
    """

    scenario: str
    defense: str
    clients: int
    rounds: tuple[int, ...]
    members: int
    outsiders: int
    scores: tuple[MembershipScore, ...] = ()
    control: float | None = None
    reason: str = ""
    properties: tuple[PropertyScore, ...] = ()
