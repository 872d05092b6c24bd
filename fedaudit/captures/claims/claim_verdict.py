"""The verdict on a stated protection once its numbers are worked out."""

from dataclasses import dataclass
from typing import Literal

from fedaudit.core.claims import Claim, Gap

Standing = Literal["guarantee", "heuristic", "contradicted", "no claim"]
MEANING: dict[Standing, str] = {
    "guarantee": "its numbers give the ε that stands beside it",
    "heuristic": "it may make attacks harder; it guarantees nothing, and has no ε",
    "contradicted": "its own numbers do not give what it claims",
    "no claim": "something that an ε cannot do without is not known",
}


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """A stated protection, what its numbers give, and what to change.

    Attributes:
        mechanism: Name in the catalog.
        stated: The protection and its settings, in words.
        place: Where that stands.
        standing: See `MEANING`.
        claimed: ε that the configuration states, of a round or of all; None where it states none.
        a_round: What its numbers give in one round, one claim a neighbor relation.
        over_rounds: The same composed over all rounds; () where their number is not known.
        reasons: Why it stands so, the gravest first, a sentence each.
        missing: Facts without which the claim is not complete.
        outside: What is sent besides, of which it says nothing.
        changes: What to do about it, an imperative each.
    """

    mechanism: str
    stated: str
    place: str
    standing: Standing
    claimed: float | None = None
    a_round: tuple[Claim, ...] = ()
    over_rounds: tuple[Claim, ...] = ()
    reasons: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    outside: tuple[Gap, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def grave(self) -> bool:
        """Whether somebody relies on differential privacy that is not there."""
        return self.standing == "contradicted" or (
            self.standing == "heuristic" and any("labeled" in reason for reason in self.reasons)
        )
