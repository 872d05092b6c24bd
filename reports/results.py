"""The contents of `results.json`: everything a report shows, as data. Pages are renderings of it.

The JSON schema is exported by `fedaudit schema results`. Absent values are null and mean "not
measured"; a rate of 0 means "measured, none found". What depends on the moment, such as times, is
in a part of its own (`fedaudit.reports.this_run`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedaudit.core.inference import Membership
from fedaudit.core.measures import Estimate, MetricFacts, Rate
from fedaudit.reports.comparison import DefenseLine, Exposure, Row, Severity, Verdict, VerdictKind
from fedaudit.reports.explanation import Explanation
from fedaudit.study.canary_result import ShownLine
from fedaudit.study.sign_off import SignOff

SCHEMA_VERSION = "15"


@dataclass(frozen=True)
class Contrast:
    """A paired comparison of two attacks on the same targets.

    Attributes:
        metric: "ssim", "lpips" or "reid".
        difference: first − second.
    """

    scenario: str
    defense: str
    metric: str
    higher_is_better: bool
    first: str
    second: str
    difference: Estimate
    seconds_first: float
    seconds_second: float


@dataclass(frozen=True)
class Ceiling:
    """What a judge recognizes of the *originals* at the study's image size.

    Attributes:
        judge: Its label in the study.
    """

    scenario: str
    image_size: int
    reid: Rate
    rank1: Rate
    threshold: float
    fmr: float
    impostor_pairs: int
    gallery_people: int
    gallery_photos: int
    judge: str = ""


@dataclass(frozen=True)
class Control:
    """One control and whether it held. `passed` is None where it could not be run."""

    name: str
    scenario: str
    outcome: str
    requirement: str
    passed: bool | None


@dataclass(frozen=True)
class Coverage:
    """One attack class: in scope or not, executed or not, and what came of it.

    Attributes:
        result: "—" where not executed; "0 of n" where executed and clean.
        standards: Names in NIST AI 100-2, MITRE ATLAS, OWASP ML.
    """

    attack_class: str
    in_scope: bool
    executed: bool
    result: str
    standards: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """Something to act on.

    Attributes:
        cause: What is wrong, wherever it is: findings of one cause are shown together.
        fingerprint: Stable over re-runs of the same configuration.
        remedy: What to do; with its measured effect where one was measured.
    """

    id: str
    severity: Severity
    confidence: Literal["high", "medium", "low"]
    cause: str
    title: str
    claim: str
    evidence: str
    configuration: str
    remedy: str
    standards: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Exhibit:
    """One picture row of the gallery: original, reconstruction, prior-only.

    Attributes:
        selection: Why it is shown ("worst" or "random").
        prior_cell: Cell of the prior-only reconstruction of the same target, if there is one.
    """

    selection: Literal["worst", "random"]
    cell: str
    prior_cell: str | None
    image: int
    scenario: str
    defense: str
    attack: str
    round: int
    person: str
    verdict: VerdictKind
    cosine: float | None
    threshold: float | None
    prior_cosine: float | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class EvidenceCell:
    """What one attack made of one photo under one defense.

    Attributes:
        cell, image: The cell, and the place of the image in it.
        match: Whether the judge takes it for the person; None where identity was not tested.
        metrics: How alike it is to the original, by name.
        steps, restarts, seconds, adaptive, history: As in `Trial`.
        nearest: People of the gallery with their identity cosine, the closest first.
    """

    cell: str
    image: int
    cosine: float | None
    match: bool | None
    metrics: Mapping[str, float]
    steps: int
    restarts: int
    seconds: float
    adaptive: str
    history: tuple[tuple[int, float], ...]
    nearest: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class EvidenceRow:
    """One photo of one person, and what came back of it.

    Attributes:
        image: Its place in the client's batch.
        cells: One a column; None where there is none.
    """

    person: str
    image: int
    cells: tuple[EvidenceCell | None, ...]


@dataclass(frozen=True)
class EvidenceMatrix:
    """One scenario's photos against its defenses.

    Attributes:
        columns: Label of a defense, and of the strongest attack on it.
        rows: The worst, then some drawn at random.
        photos: How many there are in all.
        threshold: Of a match; None without a judge.
    """

    scenario: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[EvidenceRow, ...]
    photos: int
    threshold: float | None


@dataclass(frozen=True)
class ScorePoint:
    """One reconstructed image's identity cosine, for the score distributions."""

    scenario: str
    defense: str
    attack: str
    role: str
    cosine: float


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from."""

    fedaudit: str
    command: str
    started: str
    seconds: float
    python: str
    platform: str
    cpu_count: int
    versions: Mapping[str, str]
    git_commit: str | None
    seeds: tuple[int, ...]
    data: str
    data_terms: str
    asset_terms: Mapping[str, str]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Ledger:
    """What a scenario's threat model granted, and how its rules were set.

    Attributes:
        training: Of the audited update, whose leak is measured.
        federation: Of the training whose accuracy and cost are measured, and whose rounds an ε of
            the whole training counts; "" where none was measured.
    """

    scenario: str
    threat_model: str
    granted: tuple[str, ...]
    denied: tuple[str, ...]
    training: str
    model_state: str
    federation: str = ""


@dataclass(frozen=True)
class Settings:
    """Thresholds of the verdicts, printed beside them."""

    reid_limit: float
    confidence: float
    fmr: float
    exhibit_seed: int


@dataclass(frozen=True)
class Stop:
    """Where the attacks on a defense stand, in a study that adds targets until it is decided.

    Attributes:
        targets: That the last complete look saw.
        of: That the study asks for at most.
        look: The last complete look's number, from 1; 0 before the first.
        looks: How many there are at most.
        decided: Whether the verdict needs no more targets.
    """

    scenario: str
    defense: str
    targets: int
    of: int
    look: int
    looks: int
    decided: bool

    @property
    def words(self) -> str:
        """For people.

        >>> Stop("fresh", "none", 5, 72, 1, 6, True).words
        'stopped after 5 of 72 targets: decided'
        """
        if self.decided and self.targets < self.of:
            return f"stopped after {self.targets} of {self.of} targets: decided"
        return f"looked at after {self.targets} of {self.of} targets"


@dataclass(frozen=True)
class Results:
    """The whole report as data.

    Attributes:
        deployed: Labels of the defenses that headline, findings and gate judge; () of a comparison,
            whose headline judges none.
        headline_row: Position in `rows` of the row that the headline speaks of; None where it
            speaks of none or of several.
        subject: What is counted: people who were re-identified, or of pictures that are no faces
            images that were copied; sentences and units are worded accordingly.
        metrics: What the metrics of images say of themselves, in the order in which they are shown.
        units: Independent people or updates that the data of a scenario can give at most, or of
            "SCENARIO, DEFENSE" where the defense leaves fewer; of none where it is not known.
        membership: Who can be told to be in a client's data, by scenario and defense; () where the
            study did not ask.
        shown_epsilon: What canaries show of ε beside its claim, likewise.
        stops: Where the attacks on each defense stand, in a study that stops where it is decided.
    """

    schema_version: str
    study: str
    description: str
    underpowered: bool
    release_context: str
    headline: Verdict
    headline_row: int | None
    deployed: tuple[str, ...]
    settings: Settings
    metrics: tuple[MetricFacts, ...]
    rows: tuple[Row, ...]
    defenses: tuple[DefenseLine, ...]
    exposures: tuple[Exposure, ...]
    contrasts: tuple[Contrast, ...]
    ceilings: tuple[Ceiling, ...]
    other_ceilings: tuple[Ceiling, ...]
    controls: tuple[Control, ...]
    coverage: tuple[Coverage, ...]
    findings: tuple[Finding, ...]
    exhibits: tuple[Exhibit, ...]
    matrices: tuple[EvidenceMatrix, ...]
    points: tuple[ScorePoint, ...]
    ledger: tuple[Ledger, ...]
    provenance: Provenance
    limitations: tuple[str, ...]
    sign_off: SignOff | None = None
    explanation: Explanation | None = None
    subject: Literal["people", "images"] = "people"
    units: Mapping[str, int] = field(default_factory=dict)
    membership: tuple[Membership, ...] = ()
    shown_epsilon: tuple[ShownLine, ...] = ()
    stops: tuple[Stop, ...] = ()
