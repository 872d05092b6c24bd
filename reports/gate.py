"""The gate: whether a run may pass, given what is accepted and what was there before."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from fedaudit.core.errors import ConfigError
from fedaudit.reports.accepted import Acceptance
from fedaudit.reports.results import Finding, Results
from fedaudit.reports.text import percent
from fedaudit.reports.verdicts import ORDER, rate_text

Bar = Literal[
    "critical", "high", "medium", "low", "new-critical", "new-high", "new-medium", "new-low"
]
OPEN = frozenset({"INVALID", "INCONCLUSIVE", "NOT TESTED"})
"""Verdicts of which a gate can say neither yes nor no."""


@dataclass(frozen=True)
class Gate:
    """Outcome of the gate: failures, accepted findings and expired acceptances.

    Attributes:
        failures: Why it fails, a sentence each; empty where nothing stands against the run.
        accepted: Findings that would fail it but for an acceptance that holds.
        expired: Of the failures, fingerprints of findings whose acceptance has expired.
        unused: Fingerprints that are accepted and were not found: to be taken out of the file.
        settled: The audit came to a verdict; where not, no failure is no pass.
    """

    failures: tuple[str, ...]
    accepted: tuple[Finding, ...]
    expired: tuple[str, ...]
    unused: tuple[str, ...]
    settled: bool

    @property
    def passed(self) -> bool:
        """Whether no failure stands against the run and its verdict is not open."""
        return self.settled and not self.failures


def judge_run(
    results: Results,
    *,
    fail_on: Bar | None = None,
    max_reid: float | None = None,
    baseline: Results | None = None,
    accepted: Mapping[str, Acceptance] | None = None,
    today: date,
) -> Gate:
    """Judge a run by the gate's limits on severity and rate.

    Args:
        results: Of the run.
        fail_on: Findings of that severity or graver fail; "new-…": those that the baseline lacks.
        max_reid: Largest re-identification rate of what is deployed, in [0, 1]; the upper end of
            its interval counts, and a rate that was not measured fails.
        baseline: An earlier run.
        accepted: By fingerprint.
        today: Against which acceptances expire.

    Raises:
        ConfigError: Nothing is asked, the run names nothing as deployed, or "new-…" without a
            baseline.
    """
    if fail_on is None and max_reid is None:
        raise ConfigError("A gate needs a bar: --fail-on high, --max-reid 0.05, or both.")
    if not results.deployed:
        raise ConfigError(
            "A gate judges what is deployed, and this run compares defenses without saying which "
            'is. Write deployed = "LABEL" at the top of the study, and run it again.'
        )
    if fail_on and fail_on.startswith("new-") and baseline is None:
        raise ConfigError(f"--fail-on {fail_on} needs --baseline: the run that it is new against.")
    book = accepted or {}
    grave = _grave(results, fail_on, baseline)
    passes = [f for f in grave if f.fingerprint in book and book[f.fingerprint].holds(today)]
    failing = [f for f in grave if f not in passes]
    lapses = tuple(f.fingerprint for f in failing if f.fingerprint in book)
    codes = {finding.fingerprint for finding in results.findings}
    failures = [_sentence(finding, book) for finding in failing]
    if max_reid is not None:
        failures += _too_high(results, max_reid)
    return Gate(
        failures=tuple(failures),
        accepted=tuple(passes),
        expired=lapses,
        unused=tuple(sorted(set(book) - codes)),
        settled=results.headline.kind not in OPEN,
    )


def _grave(results: Results, fail_on: Bar | None, baseline: Results | None) -> list[Finding]:
    if fail_on is None:
        return []
    level = ORDER.index(fail_on.removeprefix("new-"))
    grave = [f for f in results.findings if ORDER.index(f.severity) >= level]
    if not fail_on.startswith("new-"):
        return grave
    assert baseline
    before = {f.fingerprint: ORDER.index(f.severity) for f in baseline.findings}
    return [f for f in grave if ORDER.index(f.severity) > before.get(f.fingerprint, -1)]


def _sentence(finding: Finding, book: Mapping[str, Acceptance]) -> str:
    entry = book.get(finding.fingerprint)
    why = f"; its acceptance ended on {entry.expires.isoformat()}" if entry else ""
    return f"{finding.id} {finding.severity}: {finding.title} ({finding.fingerprint}){why}"


def _too_high(results: Results, limit: float) -> list[str]:
    rows = [row for row in results.rows if row.role == "deployed"]
    rates = [(row, row.reid) for row in rows if row.reid]
    if not rates:
        return ["Re-identification under the deployed defense was not measured."]
    row, rate = max(rates, key=lambda entry: entry[1].high)
    if rate.high <= limit:
        return []
    return [
        f"Re-identification may exceed {percent(limit)}: {rate_text(rate)} by {row.attack} in "
        f"{row.scenario} under {row.defense}"
    ]
