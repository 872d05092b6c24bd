"""Writes the report, says the verdict, and turns it into an exit code."""

from collections.abc import Mapping
from pathlib import Path

import click

from fedaudit.cli.ending import FAILURE, GATE, INCONCLUSIVE, OK
from fedaudit.cli.options import GATES
from fedaudit.errors import AttackError
from fedaudit.reports import build
from fedaudit.reports.results import Evidence, Results


def conclude(
    folder: Path,
    evidence: Evidence,
    *,
    fail_on: str | None = None,
    failed: Mapping[str, str] | None = None,
) -> tuple[Results, int]:
    """Write the report of a run folder and print the verdict.

    Args:
        folder: The run folder.
        evidence: What the report may show.
        fail_on: Severity from which findings fail the gate.
        failed: Messages of the jobs that failed, by key.

    Returns:
        The results and the exit code: 4 if jobs failed, 3 if the audit is invalid, 1 if the gate
        failed, 3 if it is inconclusive, and otherwise 0, also where a leak was demonstrated.
    """
    try:
        results = build.build_report(folder, evidence)
    except Exception:
        _say_failed(failed or {}, folder)  # it may well be the reason
        raise
    click.echo(results.headline.sentence)
    click.echo(f"report: {folder / 'report.html'}")
    _say_failed(failed or {}, folder)
    grave = graver(results, fail_on)
    if grave:
        click.echo(f"gate failed: {len(grave)} findings are {fail_on} or graver", err=True)
    return results, exit_code(results, failed=bool(failed), gate=bool(grave))


def exit_code(results: Results, *, failed: bool, gate: bool) -> int:
    """The exit code of a finished audit."""
    kind = results.headline.kind
    if failed:
        return FAILURE
    if kind == "INVALID":
        return INCONCLUSIVE
    if gate:
        return GATE
    return INCONCLUSIVE if kind in {"INCONCLUSIVE", "NOT TESTED"} else OK


def graver(results: Results, fail_on: str | None) -> list[str]:
    """Findings at or above a severity, and the headline; none without a gate."""
    levels = GATES[: GATES.index(fail_on) + 1] if fail_on else ()
    found = [finding.id for finding in results.findings if finding.severity in levels]
    return found or (["headline"] if results.headline.severity in levels else [])


def _say_failed(failed: Mapping[str, str], folder: Path) -> None:
    if not failed:
        return
    key, message = next(iter(failed.items()))
    error = AttackError(
        f"{len(failed)} jobs failed, and the report says that they were not tested. "
        f"The first, {key}: {message.splitlines()[0]} All messages stand in "
        f"{folder / 'log.jsonl'}; the same command tries them again."
    )
    click.echo(f"error: {error}", err=True)
