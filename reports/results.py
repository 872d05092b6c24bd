"""The contents of `results.json`: everything a report shows, as data. Pages are renderings of it.

The JSON schema is exported by `fedaudit schema results`. Absent values are null and mean "not
measured"; a rate of 0 means "measured, none found".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from fedaudit.core.claims import Budget
from fedaudit.core.measures import Estimate, Rate, Utility
from fedaudit.reports.explanation import Explanation

SCHEMA_VERSION = "1"

VerdictKind = Literal[
    "LEAK DEMONSTRATED", "NO LEAK FOUND ABOVE LIMIT", "INCONCLUSIVE", "INVALID", "NOT TESTED"
]
Severity = Literal["critical", "high", "medium", "low", "none"]


@dataclass(frozen=True)
class Verdict:
    """What the statistics allow one to say.

    Attributes:
        sentence: One plain sentence with the number, its interval and n.
        severity: By the lower bound of the re-identification rate.
        targets_needed: For INCONCLUSIVE: targets that would settle it if none is re-identified.
    """

    kind: VerdictKind
    sentence: str
    severity: Severity = "none"
    targets_needed: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of the comparison: scenario × defense × attack.

    Attributes:
        adaptive: Whether the attack took the defense into account, as in `Reconstruction`, on most
            targets.
        of: What the attack rebuilds: "photos" of a batch, or one face for each of several "people".
        attacked: Names of the shared things that the attack attacks together; () where it attacks
            none of what was shared: nothing was tested then, and all that follows is null.
        reid: Re-identification at the calibrated FMR (headline).
        prior: The same for the prior-only control (same attack, update replaced by noise).
        excess: reid − prior, paired by target.
        worst_cosine: Highest identity cosine; `worst_cell` and `worst_image` point at its picture.
        labels: Mean share of the label multiset that was recovered.
        seconds: Median CPU seconds a target.
        p_value, p_holm: One-sided, excess > 0; Holm over the rows of the study.
        model_state: What is known of a recorded model; "" of a simulated one, which `round` tells.
        searched: Nobody knows whom the updates are of: `reid` and `prior` count reconstructions
            that match *somebody* in the gallery, `worst_cosine` is to the nearest person.
        chance: Of photos, how often a search of the whole gallery matches a stranger.
        explained: Of recorded updates: mean cosine between an update and the one that a client
            would have made of the reconstruction; `explained_other` against another client's
            update, `explained_prior` of what was rebuilt from noise, `explained_noise` of random
            images.
        copies, prior_copies: Of recorded updates whose originals are known: how many of the
            reconstructions are copies of them, by PSNR.
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
    n_targets: int
    n_people: int
    of: Literal["photos", "people"]
    attacked: tuple[str, ...]
    reid: Rate | None
    prior: Rate | None
    excess: Estimate | None
    rank1: Rate | None
    worst_cosine: float | None
    worst_cell: str | None
    worst_image: int | None
    ssim: Estimate | None
    psnr: Estimate | None
    mse: Estimate | None
    lpips: Estimate | None
    prior_ssim: Estimate | None
    labels: float | None
    seconds: float | None
    p_value: float | None
    p_holm: float | None
    budget: Budget | None
    utility: Utility | None
    verdict: Verdict
    model_state: str = ""
    searched: bool = False
    chance: Rate | None = None
    explained: Estimate | None = None
    explained_other: Estimate | None = None
    explained_prior: Estimate | None = None
    explained_noise: Estimate | None = None
    copies: Rate | None = None
    prior_copies: Rate | None = None


@dataclass(frozen=True)
class DefenseLine:
    """What one defense buys in one scenario, under the strongest attack that met it.

    Attributes:
        name, settings: Of the defense; `defense` is its label in the study.
        attack: The one that re-identified most; None where none was run, and all rates are null.
        adaptive: Whether that attack took the defense into account, as in `Row`.
        met_by_adaptive: Whether any attack that was run did.
        verdict: The gravest of its rows.
        reid, excess, ssim, lpips, psnr: Of the strongest attack.
        reid_blind, reid_adapted: Of the strongest attack that did not take the defense into
            account, and of the strongest that did.
        worst_cosine: Over all attacks.
        reduction: Undefended − defended rate, paired by photo, both under their strongest attack.
        p_value, p_holm: One-sided, reduction > 0; Holm over all lines of the study.
        accuracy_lost: Verification accuracy against the undefended federation, a share.
        dominated_by: Label of a defense that is at least as useful and leaks no more.
    """

    scenario: str
    defense: str
    name: str
    settings: Mapping[str, Any]
    attack: str | None
    adaptive: str | None
    met_by_adaptive: bool
    verdict: VerdictKind
    reid: Rate | None
    reid_blind: Rate | None
    reid_adapted: Rate | None
    excess: Estimate | None
    worst_cosine: float | None
    ssim: Estimate | None
    lpips: Estimate | None
    psnr: Estimate | None
    reduction: Estimate | None
    p_value: float | None
    p_holm: float | None
    utility: Utility | None
    accuracy_lost: float | None
    budget: Budget | None
    dominated_by: str | None


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
        of: What the attack rebuilds, as in `Row`.
        n_people: Distinct people behind the rates.
        reid, prior, rank1, ssim: Of the row scenario × defense × attack; null where not tested.
        note: Why there is no result, or what else a reader must know.
        model_state, searched: As in `Row`.
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
    of: Literal["photos", "people"]
    n_people: int
    verdict: VerdictKind
    reid: Rate | None
    prior: Rate | None
    rank1: Rate | None
    ssim: Estimate | None
    note: str
    model_state: str = ""
    searched: bool = False


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
    """What the embedder recognizes of the *originals* at the study's image size."""

    scenario: str
    image_size: int
    reid: Rate
    rank1: Rate
    threshold: float
    fmr: float
    impostor_pairs: int
    gallery_people: int
    gallery_photos: int


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
        fingerprint: Stable over re-runs of the same configuration.
        remedy: What to do; with its measured effect where one was measured.
    """

    id: str
    severity: Severity
    confidence: Literal["high", "medium", "low"]
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
    ssim: float | None
    lpips: float | None


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
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Ledger:
    """What a scenario's threat model granted, and how its rules were set."""

    scenario: str
    threat_model: str
    granted: tuple[str, ...]
    denied: tuple[str, ...]
    training: str
    model_state: str


@dataclass(frozen=True)
class Settings:
    """Thresholds of the verdicts, printed beside them."""

    reid_limit: float
    confidence: float
    fmr: float
    exhibit_seed: int


@dataclass(frozen=True)
class Results:
    """The whole report as data."""

    schema_version: str
    study: str
    description: str
    underpowered: bool
    release_context: str
    headline: Verdict
    settings: Settings
    rows: tuple[Row, ...]
    defenses: tuple[DefenseLine, ...]
    exposures: tuple[Exposure, ...]
    contrasts: tuple[Contrast, ...]
    ceilings: tuple[Ceiling, ...]
    controls: tuple[Control, ...]
    coverage: tuple[Coverage, ...]
    findings: tuple[Finding, ...]
    exhibits: tuple[Exhibit, ...]
    points: tuple[ScorePoint, ...]
    ledger: tuple[Ledger, ...]
    provenance: Provenance
    limitations: tuple[str, ...]
    explanation: Explanation | None = None


@cache
def adapter(kind: Any = Results) -> TypeAdapter[Any]:
    """Validates and serializes `Results`, or an `Explanation`."""
    return TypeAdapter(kind)


def schema(kind: Any = Results) -> dict[str, Any]:
    """JSON schema of `results.json`, or of `why.json`."""
    return adapter(kind).json_schema()


def canonical_bytes(results: Results | Explanation) -> bytes:
    """The bytes of `results.json` or `why.json`: sorted keys, ASCII, one trailing newline.

    The run folder writes them and every page prints their SHA-256, so both must come from here.
    """
    kind: Any = type(results)
    data = adapter(kind).dump_python(results, mode="json")
    return (json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
