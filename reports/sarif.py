"""Findings as SARIF 2.1.0, which code scanning of GitHub and others read."""

import json
from urllib.parse import quote

from sarif_pydantic import (
    ArtifactLocation,
    Level,
    Location,
    Message,
    PhysicalLocation,
    Region,
    ReportingConfiguration,
    ReportingDescriptor,
    Result,
    Run,
    Sarif,
    Tool,
    ToolDriver,
)

from fedaudit.reports.comparison import Severity
from fedaudit.reports.findings import fingerprint
from fedaudit.reports.gate import OPEN
from fedaudit.reports.results import Finding, Results

_LEVELS: dict[Severity, Level] = {
    "critical": Level.ERROR,
    "high": Level.ERROR,
    "medium": Level.WARNING,
    "low": Level.NOTE,
    "none": Level.NONE,
}
_SECURITY: dict[Severity, str] = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "3.0"}
"""What GitHub sorts by: above 9 it calls critical, from 7 high, from 4 medium."""
_UNJUDGED = OPEN | {"COMPARISON"}
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(results: Results, location: str) -> str:
    """The findings as one SARIF run; fingerprints are those of every other rendering.

    A verdict that is open is a result, too: without one, code scanning would take whatever an
    earlier run had found for mended.

    Args:
        results: Of a run.
        location: Path in the user's repository at which alerts are shown, such as the study's.
    """
    causes = list(dict.fromkeys(finding.cause for finding in results.findings))
    rules = [_rule(cause, results) for cause in causes]
    if results.headline.kind in _UNJUDGED:
        rules.append(_OPEN_RULE)
    driver = ToolDriver(name="fedaudit", version=results.provenance.fedaudit, rules=rules)
    items = [_result(f, causes.index(f.cause), rules, location) for f in results.findings]
    if results.headline.kind in _UNJUDGED:
        items.append(_open_verdict(results, rules.index(_OPEN_RULE), location))
    document = Sarif(version="2.1.0", schema_uri=SCHEMA, runs=[_run(driver, items)])
    plain = document.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


def _run(driver: ToolDriver, items: list[Result]) -> Run:
    return Run(tool=Tool(driver=driver), results=items)


def _rule(cause: str, results: Results) -> ReportingDescriptor:
    mine = [finding for finding in results.findings if finding.cause == cause]
    worst = max(mine, key=lambda f: float(_SECURITY.get(f.severity, "0")))
    return ReportingDescriptor(
        id="".join(c if c.isalnum() else "-" for c in cause.lower())[:80],
        name=cause,
        short_description=Message(text=cause),
        help=Message(text=worst.remedy),
        default_configuration=ReportingConfiguration(level=_LEVELS[worst.severity]),
        properties={
            "security-severity": _SECURITY.get(worst.severity, "0.0"),
            "tags": ["security", "privacy", *worst.standards],
        },
    )


_OPEN_RULE = ReportingDescriptor(
    id="open-verdict",
    name="No verdict",
    short_description=Message(text="The audit ends without a verdict on what is deployed"),
    help=Message(text="Why stands in the report; that nothing else is listed is no pass."),
    default_configuration=ReportingConfiguration(level=Level.WARNING),
    properties={"tags": ["security", "privacy"]},
)


def _open_verdict(results: Results, place: int, location: str) -> Result:
    told = results.headline
    return Result(
        rule_id=_OPEN_RULE.id,
        rule_index=place,
        level=Level.WARNING,
        message=Message(text=f"{told.kind}: {told.sentence}"),
        locations=[_where(location)],
        partial_fingerprints={"fedaudit/v1": fingerprint("open verdict", results.study)},
    )


def _where(location: str) -> Location:
    where = PhysicalLocation(
        artifact_location=ArtifactLocation(uri=quote(location)), region=Region(start_line=1)
    )
    return Location(physical_location=where)


def _result(
    finding: Finding, place: int, rules: list[ReportingDescriptor], location: str
) -> Result:
    return Result(
        rule_id=rules[place].id,
        rule_index=place,
        level=_LEVELS[finding.severity],
        message=Message(text=f"{finding.title}. {finding.claim} {finding.remedy}"),
        locations=[_where(location)],
        partial_fingerprints={"fedaudit/v1": finding.fingerprint},
        properties={"severity": finding.severity, "confidence": finding.confidence},
    )
