"""Findings, which call for action, and coverage: which classes of attack were executed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fedaudit.core.claims import COUNTS, Claim, in_words
from fedaudit.core.printable import first_few
from fedaudit.core.protocols import AttackCategory
from fedaudit.reports.comparison import LEAKING, Exposure, Row, Severity
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Coverage, Finding
from fedaudit.reports.text import estimate, percent
from fedaudit.reports.verdicts import ORDER, defense_in_words, model_in_words, rate_text

RECONSTRUCTION: tuple[str, ...] = (
    "NIST AI 100-2 NISTAML.032",
    "MITRE ATLAS AML.T0024.001",
    "OWASP ML03:2023",
)
MEMBERSHIP = ("NIST AI 100-2 NISTAML.033", "MITRE ATLAS AML.T0024.000", "OWASP ML04:2023")
PROPERTY = ("NIST AI 100-2 NISTAML.034",)
INFERENCE = (
    Coverage("membership inference", False, False, "—", MEMBERSHIP),
    Coverage("property inference", False, False, "—", PROPERTY),
)
"""Lines of what is inferred without rebuilding a face, where a study does not ask for it."""
NO_REMEDY = (
    "No defense that was measured here lowers the rate and leaves a network that is worth more "
    "than an untrained one; try others, or larger batches."
)

_KNOWING = {
    "known": ", by an attack that knows the defense",
    "estimated": ", by an attack that reads the defense off the update",
    "no": ", by an attack that takes the defense for absent",
}

RECORDED_REMEDY = (
    "A recording holds no defense to compare with. `fedaudit run` measures defenses, larger "
    "batches and other networks on a simulated federation, with what each costs in accuracy."
)
UPDATES = frozenset({"update", "aggregate", "buffers"})
"""Kinds of which a photo of the batch is rebuilt; the others are about people."""
ONE_OWNER = (
    "Put nothing into the sum that one client alone changes: share one head, or keep class "
    "embeddings on the device."
)
IRREVERSIBILITY = ("ISO/IEC 24745 irreversibility", "ISO/IEC 30136")


@dataclass(frozen=True)
class _Lesson:
    """A title and a remedy of its own for leaks from one kind of shared thing.

    Attributes:
        title: What the finding is called; the defense follows.
        remedy: What to do, where no defense was measured to help.
    """

    title: str
    remedy: str


_BY_KIND: Mapping[str, _Lesson] = {
    "class_embeddings": _Lesson(
        "Class embeddings are templates: faces come back from them",
        "Keep class embeddings on the device, as a private head is kept; where a server must hold "
        "them, protect and delete them as the biometric templates that they are.",
    ),
    "cluster_centers": _Lesson(
        "Cluster centers are templates of their members: faces come back from them",
        "Release fewer centers, each of more people (min_size), with more noise (a lower epsilon), "
        "and audit again.",
    ),
    "summed_rows": _Lesson(
        "The secure sum does not hide rows of one owner: faces come back from them",
        ONE_OWNER,
    ),
}


def coverage(
    categories: Mapping[str, AttackCategory],
    rows: tuple[Row, ...],
    inference: Iterable[Coverage] = INFERENCE,
) -> tuple[Coverage, ...]:
    """Every class of attack on shared updates, executed or not.

    Args:
        categories: The class of each attack of the study, by its label.
        rows: The comparison.
        inference: The lines of what is inferred without rebuilding it.
    """
    measurements = [(row, row.measurement) for row in rows if row.measurement]
    lines = []
    for category in (c for c in AttackCategory if c is not AttackCategory.OTHER):
        mine = [(row, m) for row, m in measurements if categories[row.attack] is category]
        more = IRREVERSIBILITY if category is AttackCategory.TEMPLATE else ()
        in_scope = category in categories.values()
        standards = (*RECONSTRUCTION, *more)
        lines.append(Coverage(category.value, in_scope, bool(mine), _result(mine), standards))
    lines += inference
    for label in sorted(a for a, c in categories.items() if c is AttackCategory.OTHER):
        ran = any(row.attack == label for row, _ in measurements)
        result = "see the comparison" if ran else "—"
        lines.append(Coverage(f"other: {label}", True, ran, result, ()))
    return tuple(lines)


def _result(measurements: Sequence[tuple[Row, Measurement]]) -> str:
    rates = [m.reid for _, m in measurements if m.reid]
    if not rates:
        return "executed; identity not tested" if measurements else "—"
    hits, n = sum(r.hits for r in rates), sum(r.n for r in rates)
    all_searches = all(m.searched for _, m in measurements)
    verb = "match somebody in the gallery" if all_searches else "re-identified somebody"
    names = dict.fromkeys(attack_name(row.attack) for row, _ in measurements)
    return f"{hits} of {n} trials {verb}, all defenses together (by {first_few(names)})"


def findings(
    rows: tuple[Row, ...],
    exposures: tuple[Exposure, ...] = (),
    more: Iterable[Finding] = (),
) -> tuple[Finding, ...]:
    """Demonstrated leaks, single matches, and protections that do not cover what they seem to.

    Of each scenario and deployed defense (in a comparison: each but the control) the worst leak is
    a finding, and apart from it the worst leak from templates; a secure sum among what was sent is
    one; `more` come from elsewhere, to be put in order with these.
    """
    issues: list[Finding] = []
    is_comparison = not any(row.role == "deployed" for row in rows)
    roles = {"alternative"} if is_comparison else {"deployed"}  # the control is never a finding
    for scene in dict.fromkeys((r.scenario, r.defense) for r in rows if r.role in roles):
        mine = [row for row in rows if (row.scenario, row.defense) == scene and row.reid]
        for of_templates in (False, True):
            group = [row for row in mine if _is_template(row) is of_templates]
            leaks = [row for row in group if row.verdict.kind in LEAKING]
            singles = [row for row in group if row.reid and row.reid.hits and not leaks]
            if leaks:
                issues.append(_leak(max(leaks, key=_order), rows))
            elif singles:
                issues.append(_single(max(singles, key=_order)))
        issues += _gaps_of_claims(mine)
    issues += [*_secure_sums(exposures), *more]
    result = sorted(issues, key=lambda f: -ORDER.index(f.severity))
    return tuple(replace(finding, id=f"F{k:02d}") for k, finding in enumerate(result, 1))


def _finding(
    row: Row,
    kind: str,
    *,
    severity: Severity,
    confidence: Literal["high", "medium", "low"],
    title: str,
    claim: str,
    remedy: str,
    cause: str = "",
    evidence: str = "",
    standards: tuple[str, ...] = RECONSTRUCTION,
) -> Finding:
    """A finding about one row; its number comes with the order."""
    place = (row.scenario, row.network, row.method, str(row.round), row.defense, row.attack)
    return Finding(
        id="",
        severity=severity,
        confidence=confidence,
        cause=cause or title,
        title=title,
        claim=claim,
        evidence=evidence or row.verdict.sentence,
        configuration=f"scenario {row.scenario}: network {row.network}, method {row.method}, "
        f"round {row.round}, batch {row.batch_size}, from {_source(row)}, threat model "
        f"{row.threat_model}{_KNOWING.get(row.adaptive, '')}",
        remedy=remedy,
        standards=standards,
        fingerprint=fingerprint(kind, *place),
    )


def _leak(row: Row, rows: tuple[Row, ...]) -> Finding:
    m = row.measurement
    assert m
    likeness, parts = [], []
    if m.ssim:
        likeness.append(f"SSIM {estimate(m.ssim)}")
    if lpips := m.metrics.get("lpips"):
        likeness.append(f"LPIPS {lpips.value:.2f}")
    if likeness:
        parts.append(", ".join(likeness))
    cause = "Faces can be rebuilt from updates"
    if m.searched:
        cause = "Faces that match somebody in the gallery come out of updates"
    title = f"{cause} of {model_in_words(row)}"
    remedy, standards = _remedy(row, rows), RECONSTRUCTION
    if _is_template(row):
        lesson = _lesson(m.attacked)
        title, cause, standards = lesson.title, lesson.title, (*RECONSTRUCTION, *IRREVERSIBILITY)
        remedy = lesson.remedy if remedy == NO_REMEDY else f"{lesson.remedy} {remedy}"
    return _finding(
        row,
        "leak",
        severity=row.verdict.severity,
        confidence="high" if m.p_holm is not None and m.p_holm < 0.05 else "medium",
        cause=cause,
        title=f"{title}, {_under(row)}",
        claim=_claim(row),
        evidence=f"{row.verdict.sentence} {'; '.join(parts)}." if parts else "",
        remedy=remedy,
        standards=standards,
    )


def _claim(row: Row) -> str:
    m = row.measurement
    assert m
    assert m.reid
    if m.searched:
        return f"Of {attack_name(row.attack)}, {rate_text(m.reid)} match somebody in the gallery."
    return f"{attack_name(row.attack)} re-identified {rate_text(m.reid)}."


def _single(row: Row) -> Finding:
    assert row.reid
    matches = "1 match" if row.reid.hits == 1 else f"{row.reid.hits} matches"
    return _finding(
        row,
        "single",
        severity="low",
        confidence="low",
        cause="Single matches, not significantly above prior-only",
        title=f"{matches} from {_source(row)} {_under(row)}, not significantly above prior-only",
        claim=_claim(row),
        remedy="Run more targets: a confirmed match matters even in a run that is clean otherwise.",
    )


def _gaps_of_claims(rows: Iterable[Row]) -> list[Finding]:
    """A claim that leaves out what leaks, or is broken: the guarantee is about something else."""
    for row in sorted(rows, key=_order, reverse=True):
        if open_ := open_claims(row):
            leaks = row.verdict.kind in LEAKING
            is_broken = any(claim.broken for claim in open_)
            title = "is broken" if is_broken else "does not cover what leaks"
            finding = _finding(
                row,
                "uncovered",
                severity="high" if leaks or is_broken else "low",
                confidence="high",
                cause=f"A privacy claim {title}",
                title=f"The privacy claim of {defense_name(row.defense)} {title}",
                claim="; ".join(map(in_words, open_)) + ".",
                remedy="State unit and scope of the guarantee wherever ε is quoted, and protect "
                "what it does not cover too: the update by DP-SGD or client DP, with nothing after "
                "it that reads the photos.",
            )
            return [finding]
    return []


def open_claims(row: Row) -> list[Claim]:
    """Claims that are broken, or leave out something that was sent or decided by the photos.

    Numbers of images, and labels that the threat model grants, stand in the claim's line.
    """
    return [
        claim
        for claim in row.claims
        if claim.broken or any(gap.what not in (COUNTS, "labels") for gap in claim.gaps)
    ]


def _order(row: Row) -> tuple[float, float]:
    return row.strength[0], row.strength[2]


def _remedy(row: Row, rows: tuple[Row, ...]) -> str:
    """The defense that was measured to help most in the same scenario, with its price."""
    rivals: dict[str, list[Row]] = {}
    for other in rows:
        if other.scenario == row.scenario and other.defense != row.defense and other.reid:
            rivals.setdefault(other.defense, []).append(other)
    # A defense is as good as it is against the attack that does best against it.
    worst = [max(mine, key=_order) for mine in rivals.values()]
    helping = [
        w
        for w in worst
        if w.reid
        and row.reid
        and w.reid.value < row.reid.value
        and (w.utility is None or w.utility.helps)
    ]
    if not helping and row.model_state:
        return RECORDED_REMEDY
    if not rivals:
        return f"No other defense was run in scenario {row.scenario}: add some to it."
    if not helping:
        return NO_REMEDY
    best = min(helping, key=_order)
    assert best.reid is not None
    price = " Its cost in accuracy was not measured."
    if best.utility and row.utility:
        price = (
            f" Verification accuracy went from {percent(row.utility.accuracy.value)} to "
            f"{percent(best.utility.accuracy.value)} (untrained: "
            f"{percent(best.utility.untrained.value)})."
        )
    name = defense_in_words(best)
    # Without saying so, the best of those that left accuracy would look like the best of all.
    if any(w not in helping and w.reid and w.reid.value < best.reid.value for w in worst):
        name += ", of those whose network was shown to learn"
    lead = {
        "NO LEAK FOUND ABOVE LIMIT": f"Use {name}",
        "LEAK DEMONSTRATED": f"No defense measured here suffices; least came back under {name}",
    }.get(best.verdict.kind, f"Try {name}, and audit it with more people; measured here")
    measured = f"{rate_text(best.reid)} re-identified (its verdict: {best.verdict.kind.lower()})"
    return f"{lead}: {measured}.{price}"


def _secure_sums(exposures: tuple[Exposure, ...]) -> list[Finding]:
    """What the server sees of a secure sum beyond the sum: an identity, not a measurement."""
    issues = []
    for scenario in dict.fromkeys(e.scenario for e in exposures):
        here = {_kind_of(e.artifact): e for e in exposures if e.scenario == scenario}
        e = here.get("summed_rows", here.get("aggregate"))
        if e is None:
            continue
        has_owners = _kind_of(e.artifact) == "summed_rows"
        which = "Whether a row here has one owner is for the method to say."
        if has_owners:
            which = "Here such rows were summed: each is known as if it had been sent in clear."
        title = "The secure sum hides only what several clients change"
        if has_owners:
            title = "The secure sum hides no row that one client alone owns"
        issues.append(
            Finding(
                id="",
                severity="low" if has_owners else "none",
                confidence="high",
                cause=title,
                title=title,
                claim="A row that one client alone changes comes out of the sum exactly, whatever "
                f"the others send: W_k = (S − (Σw − w_k) · W_sent) / w_k. {which}",
                evidence="Derived, not measured in this run: the server knows what it had sent, "
                "W_sent, and the weights w travel in clear. Tested to errors below 1e-5 "
                "(fedaudit.attacks.closed_form.secure_sum).",
                configuration=f"scenario {e.scenario}: network {e.network}, method {e.method}, "
                f"round {e.round}, {e.artifact} of {e.summary}",
                remedy=ONE_OWNER,
                standards=(*RECONSTRUCTION, *IRREVERSIBILITY),
                fingerprint=fingerprint(
                    "secure sum", e.scenario, e.network, e.method, str(e.round)
                ),
            )
        )
    return issues


def _source(row: Row) -> str:
    kinds = row.measurement.attacked if row.measurement else ()
    names = ("updates" if kind == "update" else kind.replace("_", " ") for kind in kinds)
    return " + ".join(names) or "updates"


def _under(row: Row) -> str:
    return "without a defense" if row.defense == "none" else f"under {defense_name(row.defense)}"


def fingerprint(*parts: str) -> str:
    """Names what a finding is about, the same in every run of one configuration."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _kind_of(artifact: str) -> str:
    """The kind of a thing that was sent: "update" of "update#2:body.0."."""
    return artifact.partition(":")[0].partition("#")[0]


def _is_template(row: Row) -> bool:
    """Whether what the attack attacks tells of people, not of the photos of one batch."""
    m = row.measurement
    return m is not None and (
        m.of == "people" or bool({_kind_of(name) for name in m.attacked} - UPDATES)
    )


def _lesson(names: Iterable[str]) -> _Lesson:
    """What there is to say of a template that leaks; of a package's kind, in general words."""
    kinds = sorted({_kind_of(name) for name in names} - {"update", "buffers"})
    ours = [kind for kind in kinds if kind in _BY_KIND]
    if ours:
        return _BY_KIND[ours[0]]
    name = " + ".join(kinds) or "what was shared"
    return _Lesson(
        f"Faces of people come back from {name}",
        f"Do not share {name}, or only in a form from which the attack no longer works; audit "
        "again.",
    )
