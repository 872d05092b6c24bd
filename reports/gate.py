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
    """What the gate says.

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
        """Nothing stands against the run, and its verdict is not open."""
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
    """Hold a run against bars.

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
    taken = accepted or {}
    grave = _grave(results, fail_on, baseline)
    kept = [f for f in grave if f.fingerprint in taken and taken[f.fingerprint].holds(today)]
    failing = [f for f in grave if f not in kept]
    expired = tuple(f.fingerprint for f in failing if f.fingerprint in taken)
    found = {finding.fingerprint for finding in results.findings}
    failures = [_sentence(finding, taken) for finding in failing]
    if max_reid is not None:
        failures += _too_high(results, max_reid)
    return Gate(
        failures=tuple(failures),
        accepted=tuple(kept),
        expired=expired,
        unused=tuple(sorted(set(taken) - found)),
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
    known = {f.fingerprint: ORDER.index(f.severity) for f in baseline.findings}
    return [f for f in grave if ORDER.index(f.severity) > known.get(f.fingerprint, -1)]


def _sentence(finding: Finding, taken: Mapping[str, Acceptance]) -> str:
    ended = taken.get(finding.fingerprint)
    why = f"; its acceptance ended on {ended.expires.isoformat()}" if ended else ""
    return f"{finding.id} {finding.severity}: {finding.title} ({finding.fingerprint}){why}"


def _too_high(results: Results, limit: float) -> list[str]:
    rows = [row for row in results.rows if row.role == "deployed"]
    tested = [(row, row.reid) for row in rows if row.reid]
    if not tested:
        return ["Re-identification under the deployed defense was not measured."]
    row, rate = max(tested, key=lambda entry: entry[1].high)
    if rate.high <= limit:
        return []
    return [
        f"Re-identification may exceed {percent(limit)}: {rate_text(rate)} by {row.attack} in "
        f"{row.scenario} under {row.defense}"
    ]
