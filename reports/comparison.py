"""The lines of a comparison as data: what each attack recovered, and what each defense buys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedaudit.core.claims import Claim
from fedaudit.core.measures import Estimate, Rate, Utility
from fedaudit.core.scenario import Choice, Study
from fedaudit.reports.measurement import Measurement

VerdictKind = Literal[
    "LEAK DEMONSTRATED",
    "TRACE OF IDENTITY",
    "NO LEAK FOUND ABOVE LIMIT",
    "INCONCLUSIVE",
    "INVALID",
    "NOT TESTED",
    "COMPARISON",
]
"""TRACE OF IDENTITY: something of who it was comes through, too little to say how much. COMPARISON
is no row's: of a study that names no deployed defense, whose headline judges none."""
LEAKING: frozenset[VerdictKind] = frozenset({"LEAK DEMONSTRATED", "TRACE OF IDENTITY"})
"""Verdicts of what was shown to come through."""
GRAVITY: tuple[VerdictKind, ...] = (
    "LEAK DEMONSTRATED",
    "INVALID",
    "TRACE OF IDENTITY",
    "INCONCLUSIVE",
    "NO LEAK FOUND ABOVE LIMIT",
    "NOT TESTED",
)
"""Verdicts, gravest first."""
ADAPTED = frozenset({"known", "estimated", "none needed"})
"""Words of attacks that took the defense into account, or had nothing to take into account."""
Reason = Literal[
    "",
    "too few units",
    "data too small",
    "no prior-only control",
    "no undefended control",
    "no power",
    "blind attack",
    "unconverged",
    "prior overlap",
    "source not shown",
    "not explained",
    "not run",
]
"""Why a row or a study is inconclusive, for programs; the sentence says it to people."""
Severity = Literal["critical", "high", "medium", "low", "none"]
Role = Literal["deployed", "alternative", "control"]
"""What a defense is in a study: what the verdict judges, another choice, or none at all."""


def role_of(study: Study, defense: Choice) -> Role:
    """Role of a defense in a study: deployed, alternative or control."""
    if defense.label in study.audited:
        return "deployed"
    return "control" if defense.name == "none" else "alternative"


@dataclass(frozen=True)
class Verdict:
    """What the statistics allow one to say.

    Attributes:
        sentence: One plain sentence with the number, its interval and n.
        severity: By the lower bound of the re-identification rate.
        targets_needed: For INCONCLUSIVE: independent units that would settle it if none of them is
            re-identified; None where the data set cannot give so many, or more would not help.
        reason: Why it is INCONCLUSIVE; "" of other verdicts.
    """

    kind: VerdictKind
    sentence: str
    severity: Severity = "none"
    targets_needed: int | None = None
    reason: Reason = ""


@dataclass(frozen=True)
class Row:
    """One line of the comparison: scenario × defense × attack.

    Attributes:
        adaptive: Whether the attack took the defense into account, as in `Reconstruction`, on most
            targets.
        measurement: None where the attack attacks nothing of what was shared: nothing was tested.
        model_state: What is known of a recorded model; "" of a simulated one, which `round` tells.
        role: Of the defense. Verdict, severity, findings and gate judge the deployed rows.
        primary: The one row of the study that is tested first (`identity_tests.primary`).
        undefended: The defense is none at all: the row that shows what the attack can do.
        attack_settings: The attack's name, settings and adaptation as the study states them.
    """

    scenario: str
    network: str
    method: str
    round: int
    batch_size: int
    defense: str
    attack: str
    threat_model: str
    adaptive: str
    measurement: Measurement | None
    claims: tuple[Claim, ...]
    utility: Utility | None
    verdict: Verdict
    model_state: str = ""
    role: Role = "deployed"
    primary: bool = False
    undefended: bool = False
    attack_settings: str = ""

    @property
    def reid(self) -> Rate | None:
        """The headline metric; None where it was not tested."""
        return self.measurement.reid if self.measurement else None

    @property
    def worst_cosine(self) -> float | None:
        """Highest identity cosine."""
        worst = self.measurement and self.measurement.worst
        return worst.cosine if worst else None

    @property
    def strength(self) -> tuple[float, float, float]:
        """Orders rows by what they show: lower bounds of rate and excess, then SSIM."""
        m = self.measurement
        if m is None:
            return 0.0, -1.0, -1.0
        low = m.reid.low if m.reid else 0.0
        return low, m.excess.low if m.excess else -1.0, m.ssim.value if m.ssim else -1.0


def strongest(rows: Sequence[Row]) -> Row | None:
    """The row whose attack re-identifies most.

    Among equals one that took the defense into account, then the one with the higher SSIM.
    """
    candidates = [
        (row.reid.value, row.adaptive in ADAPTED, row.strength[2], row) for row in rows if row.reid
    ]
    return max(candidates, key=lambda entry: entry[:3])[3] if candidates else None


def leak_order(row: Row) -> tuple[float, float]:
    """Orders rows by how much leaks: lower bound of the rate, then SSIM."""
    return row.strength[0], row.strength[2]


def met_by_adaptive(rows: Sequence[Row]) -> bool:
    """Whether an attack that took the defense into account was measured."""
    return any(row.adaptive in ADAPTED for row in rows if row.reid)


@dataclass(frozen=True)
class DefenseLine:
    """What one defense buys in one scenario, under the strongest attack that met it.

    Attributes:
        name, settings: Of the defense; `defense` is its label in the study.
        attack: The one that re-identified most; None where none was run.
        adaptive: Whether that attack took the defense into account, as in `Row`.
        measurement: What that attack recovered.
        met_by_adaptive: Whether any attack that was run did.
        verdict: The gravest of its rows.
        reid_blind, reid_adapted: Of the strongest attack that did not take the defense into
            account, and of the strongest that did.
        worst_cosine: Over all attacks.
        reduction: Undefended − defended rate, paired by photo, both under their strongest attack.
        p_value, p_holm: One-sided, reduction > 0; Holm over all lines of the study.
        accuracy_lost: Verification accuracy of the undefended federation less this one's, by person
            and training; a share.
        dominated_by: Label of a defense that is no less useful and leaks no more, by estimates,
            and is better in one of the two by an interval.
        role: As in `Row`.
        same_training: The federation trained under it as it does undefended (`same_training`), so
            that `utility` was not measured.
    """

    scenario: str
    defense: str
    name: str
    settings: Mapping[str, Any]
    attack: str | None
    adaptive: str | None
    measurement: Measurement | None
    met_by_adaptive: bool
    verdict: VerdictKind
    reid_blind: Rate | None
    reid_adapted: Rate | None
    worst_cosine: float | None
    utility: Utility | None
    accuracy_lost: Estimate | None
    claims: tuple[Claim, ...]
    dominated_by: str | None
    reduction: Estimate | None = None
    p_value: float | None = None
    p_holm: float | None = None
    role: Role = "deployed"
    same_training: bool = False

    @property
    def reid(self) -> Rate | None:
        """Re-identification rate under the strongest attack."""
        return self.measurement.reid if self.measurement else None


@dataclass(frozen=True)
class Exposure:
    """One cell of the exposure map: a thing that was sent × an attack on it.

    Attributes:
        scenario, network, method, round, defense: Where it was sent.
        artifact: Name of the thing ("update", "class_embeddings"; the second update of a client is
            "update#2"), with the prefixes of its parameters where the attacker was shown some only.
        summary, bytes: What it holds, in numbers; of one target's.
        sent: In how many of the `targets` it was there.
        readers: Registered attacks that read such a thing, when the study was run.
        attack: Who attacks it; None where no attack of the study attacks it: nothing was tested.
        together: Everything that the attack attacks or uses at once; the result is of all of them.
        measurement: Of the row scenario × defense × attack; None where not tested.
        note: Why there is no result, or what else a reader must know.
        model_state: As in `Row`.
    """

    scenario: str
    network: str
    method: str
    round: int
    defense: str
    artifact: str
    summary: str
    bytes: int
    sent: int
    targets: int
    readers: tuple[str, ...]
    attack: str | None
    together: tuple[str, ...]
    verdict: VerdictKind
    measurement: Measurement | None
    note: str
    model_state: str = ""

    @property
    def reid(self) -> Rate | None:
        """The headline metric; None where it was not tested."""
        return self.measurement.reid if self.measurement else None
