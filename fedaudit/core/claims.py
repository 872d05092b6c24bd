"""Privacy guarantees as they are claimed: an ε with its unit, its scope, and what it leaves out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf, isinf
from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

Neighbors = Literal["add or remove one", "replace one", ""]
Law = Literal["gaussian", "laplace", "stated"]
Epsilon = Annotated[
    float,
    BeforeValidator(lambda value: inf if value is None else value),
    PlainSerializer(lambda value: None if isinf(value) else value, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}),
]
"""ε; where no finite one holds, infinity, and null in JSON."""
HEURISTIC = "heuristic"
"""What a defense is that makes no claim."""
COUNTS = "counts"
"""Name of the exact numbers of images among the things that are sent."""


@dataclass(frozen=True)
class Spending:
    """Equal runs of one mechanism, as an accountant counts them.

    Attributes:
        law: Of the noise; "stated" where no more is known than (ε, δ) of one run.
        runs: How many.
        noise: Its scale over the sensitivity: σ/Δ₂ of "gaussian", b/Δ₁ of "laplace".
        sampling: Probability with which a unit takes part in a run, of "gaussian" (Poisson).
        epsilon, delta: Of one run, of "stated"; δ of "laplace" is what advanced composition may
            spend.
    """

    law: Law
    runs: int = 1
    noise: float = 0.0
    sampling: float = 1.0
    epsilon: Epsilon = 0.0
    delta: float = 0.0


@dataclass(frozen=True)
class Gap:
    """Something that a claim does not cover.

    Attributes:
        what: A kind of shared thing ("update"), `COUNTS`, or what was decided without noise.
        why: The reason, as the end of a sentence.
    """

    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A differential-privacy guarantee with its scope.

    It says: what is sent of the kinds that it covers, in its rounds, is (ε, δ)-indistinguishable
    between any two neighboring data sets. Of everything in `gaps` it says nothing. A claim that
    covers nothing is broken; its ε is kept, as that of the mechanism alone.

    Attributes:
        epsilon, delta: ε ≥ 0, infinite without noise; δ in [0, 1).
        unit: What is protected: "image", "client", "class embedding"; "" where it is not stated.
        neighbors: How neighboring data sets differ in one unit; "" where it is not stated.
        covers: Kinds of shared things, as `fedaudit.core.shared.kind_of` names them.
        gaps: What is not covered, by name.
        rounds: Over which ε is composed; None where the claim is for a whole training of unknown
            length.
        mechanism: What gives it ("DP-SGD").
        settings: Of the mechanism, by name.
        accountant: Who computed ε.
        sampling: What ε assumes of the choice of units; "" where it is not stated.
        stage: Where the noise enters: in "training", so that all that is computed of the trained
            weights is covered, or in "sending".
        spendings: What was run, for composition; () where it is not known.

    Example:
        >>> claim = Claim(epsilon=4.7, delta=1e-5, unit="image", neighbors="add or remove one",
        ...               covers=("update",), mechanism="DP-SGD", accountant="opacus rdp")
        >>> in_short((claim,))
        'ε = 4.7, δ = 1e-05, per image, 1 round, covers update'
        >>> in_short((claim.without(Gap("update", "soteria reads the photos")),))
        'broken (per image): not update'
    """

    epsilon: Epsilon
    delta: float
    unit: str
    neighbors: Neighbors
    covers: tuple[str, ...]
    mechanism: str
    accountant: str
    gaps: tuple[Gap, ...] = ()
    rounds: int | None = 1
    settings: Mapping[str, float | str] = field(default_factory=dict)
    sampling: str = ""
    stage: Literal["training", "sending"] = "sending"
    spendings: tuple[Spending, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether the claim covers none of the shared things any more."""
        return not self.covers

    @property
    def missing(self) -> tuple[str, ...]:
        """What a reader must know to judge a claim and this one leaves unstated."""
        statements = {
            "unit": self.unit,
            "neighbor relation": self.neighbors,
            "sampling": self.sampling,
            "number of rounds": self.rounds,
        }
        return tuple(name for name, value in statements.items() if not value)

    def covering(self, *kinds: str) -> "Claim":
        """The same claim, extended to these kinds of shared things."""
        new = tuple(kind for kind in kinds if kind not in self.covers)
        return replace(self, covers=(*self.covers, *new))

    def without(self, *gaps: Gap) -> "Claim":
        """The same claim without the kinds of these gaps, which it then states as not covered."""
        names = {gap.what for gap in gaps}
        return replace(
            self,
            covers=tuple(kind for kind in self.covers if kind not in names),
            gaps=tuple(dict.fromkeys((*self.gaps, *gaps))),
        )

    def renamed(self, names: Mapping[str, str]) -> "Claim":
        """The claim where kinds have other names, as in the sum of a secure aggregator."""
        covers = tuple(dict.fromkeys(names.get(kind, kind) for kind in self.covers))
        gaps = tuple(replace(gap, what=names.get(gap.what, gap.what)) for gap in self.gaps)
        return replace(self, covers=covers, gaps=gaps)


def by_unit(claims: Iterable[Claim]) -> list[list[Claim]]:
    """Claims of one unit and neighbor relation side by side: no others may be added up."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.unit, claim.neighbors), []).append(claim)
    return list(groups.values())


def joint_scope(claims: Iterable[Claim]) -> tuple[tuple[str, ...], tuple[Gap, ...]]:
    """What all of `claims` together cover, and what at least one of them does not."""
    claims = list(claims)
    gaps = tuple(dict.fromkeys(gap for claim in claims for gap in claim.gaps))
    out = {gap.what for gap in gaps}
    kinds = dict.fromkeys(kind for claim in claims for kind in claim.covers)
    return tuple(kind for kind in kinds if kind not in out), gaps


def worst(of_each: Iterable[tuple[Claim, ...]]) -> tuple[Claim, ...]:
    """Of several targets or clients, for each unit the weakest claim, with every gap of any.

    They have different data, so that ε does not add up: everybody has at least the weakest.
    """
    claims = [claim for claims in of_each for claim in claims]
    weakest = []
    for group in by_unit(claims):
        covers, gaps = joint_scope(group)
        last = max(group, key=lambda claim: (claim.epsilon, claim.delta))
        weakest.append(replace(last, covers=covers, gaps=gaps))
    return tuple(weakest)


def epsilon(claim: Claim) -> str:
    """The bare ε, for places beside which unit and scope stand."""
    return "∞" if isinf(claim.epsilon) else f"{claim.epsilon:.3g}"


def in_words(claim: Claim) -> str:
    """The whole claim as a sentence without full stop, as every page and table prints it.

    >>> print(in_words(Claim(epsilon=inf, delta=1e-5, unit="client", neighbors="replace one",
    ...     covers=("update",), gaps=(Gap("counts", "they travel in clear"),), rounds=3,
    ...     mechanism="gaussian noise", accountant="opacus rdp")))
    ε = ∞ (no noise), δ = 1e-05 for one client (replace one), 3 rounds, of: update; \
not covered: counts (they travel in clear)
    """
    gaps: dict[str, list[str]] = {}
    for gap in claim.gaps:
        gaps.setdefault(gap.what, []).append(gap.why)
    outside = ", ".join(f"{what} ({'; '.join(whys)})" for what, whys in gaps.items())
    not_covered = f"not covered: {outside}" if outside else ""
    unit = f"one {claim.unit or 'unit that is not stated'}"
    if claim.neighbors:
        unit = f"{unit} ({claim.neighbors})"
    scope = f"for {unit}, {_rounds(claim)}"
    if claim.broken:
        return f"broken, no ε holds {scope}; {not_covered or 'nothing is covered'}"
    none = " (no noise)" if isinf(claim.epsilon) else ""
    size = f"ε = {epsilon(claim)}{none}, δ = {claim.delta:g} {scope}, of: {', '.join(claim.covers)}"
    return "; ".join(part for part in (size, not_covered) if part)


def origin(claim: Claim) -> str:
    """Mechanism, settings, sampling and accountant, for the small print below a claim."""
    settings = (
        f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in claim.settings.items()
    )
    return "; ".join(
        part
        for part in (", ".join((claim.mechanism, *settings)), claim.sampling, claim.accountant)
        if part
    )


def in_short(claims: Iterable[Claim], nothing: str = HEURISTIC) -> str:
    """All claims in a few words, with unit and scope; `nothing` where there is none."""
    return "; ".join(map(_short, claims)) or nothing


def _short(claim: Claim) -> str:
    unit = f"per {claim.unit or 'unit not stated'}"
    gaps = ", ".join(dict.fromkeys(gap.what for gap in claim.gaps))
    outside = f"not {gaps}" if gaps else ""
    if claim.broken:
        return f"broken ({unit}): {outside or 'covers nothing'}"
    inside = ", ".join(part for part in (*claim.covers, outside) if part)
    size = f"ε = {epsilon(claim)}, δ = {claim.delta:g}"
    return f"{size}, {unit}, {_rounds(claim)}, covers {inside}"


def _rounds(claim: Claim) -> str:
    if claim.rounds is None:
        return "the whole training"
    return "1 round" if claim.rounds == 1 else f"{claim.rounds} rounds"
