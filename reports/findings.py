"""Findings, which call for action: leaks, single matches, claims that do not cover what leaks."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from fedaudit.core.claims import COUNTS, Claim, in_words
from fedaudit.reports.comparison import LEAKING, Exposure, Reason, Row, Severity, leak_order
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.remedies import NO_REMEDY, remedy_of
from fedaudit.reports.results import Finding
from fedaudit.reports.standards import IRREVERSIBILITY, RECONSTRUCTION
from fedaudit.reports.template_leaks import ONE_OWNER, is_template, kind_of, lesson_of
from fedaudit.reports.text import estimate, number
from fedaudit.reports.verdicts import ORDER, model_in_words, rate_text

_KNOWING = {
    "known": ", by an attack that knows the defense",
    "estimated": ", by an attack that reads the defense off the update",
    "no": ", by an attack that takes the defense for absent",
}


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
            group = [row for row in mine if is_template(row) is of_templates]
            leaks = [row for row in group if row.verdict.kind in LEAKING]
            singles = [row for row in group if row.reid and row.reid.hits and not leaks]
            if leaks:
                issues.append(_leak(max(leaks, key=leak_order), rows))
            elif singles:
                issues.append(_single(max(singles, key=leak_order)))
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
        likeness.append(f"LPIPS {number(lpips.value)}")
    if likeness:
        parts.append(", ".join(likeness))
    cause = "Faces can be rebuilt from updates"
    if m.searched:
        cause = "Faces that match somebody in the gallery come out of updates"
    title = f"{cause} of {model_in_words(row)}"
    remedy, standards = remedy_of(row, rows), RECONSTRUCTION
    if is_template(row):
        lesson = lesson_of(m.attacked)
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


NO_CONTROL = (
    "Nothing says what chance finds: set controls = true; where it is, give the same command again."
)
_UNPROVEN: Mapping[Reason, tuple[str, str]] = {
    "no prior-only control": (
        "with no prior-only control to say what chance finds",
        NO_CONTROL,
    ),
    "prior overlap": (
        "by an attack whose prior knows the audited photos",
        "Attack with a prior that does not know the audited photos.",
    ),
    "source not shown": (
        "not shown to come from the update",
        "Audit more people, or attack with a prior that does not know them.",
    ),
}
"""Why matches demonstrate no leak where it is not their number, and what to do about it."""


def _single(row: Row) -> Finding:
    assert row.reid
    matches = "1 match" if row.reid.hits == 1 else f"{row.reid.hits} matches"
    why, remedy = _UNPROVEN.get(
        row.verdict.reason,
        (
            "not significantly above prior-only",
            "Run more targets: a confirmed match matters even in a run that is clean otherwise.",
        ),
    )
    return _finding(
        row,
        "single",
        severity="low",
        confidence="low",
        cause=f"Single matches, {why}",
        title=f"{matches} from {_source(row)} {_under(row)}, {why}",
        claim=_claim(row),
        remedy=remedy,
    )


def _gaps_of_claims(rows: Iterable[Row]) -> list[Finding]:
    """A claim that leaves out what leaks, or is broken: the guarantee is about something else."""
    for row in sorted(rows, key=leak_order, reverse=True):
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


def _secure_sums(exposures: tuple[Exposure, ...]) -> list[Finding]:
    """What the server sees of a secure sum beyond the sum: an identity, not a measurement."""
    issues = []
    for scenario in dict.fromkeys(e.scenario for e in exposures):
        here = {kind_of(e.artifact): e for e in exposures if e.scenario == scenario}
        e = here.get("summed_rows", here.get("aggregate"))
        if e is None:
            continue
        has_owners = kind_of(e.artifact) == "summed_rows"
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
