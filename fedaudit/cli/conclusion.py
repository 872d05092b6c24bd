"""How an audit ends on a terminal: report, exposure map, verdict and exit code."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from fedaudit.cli.ending import FAILURE, GATE, INCONCLUSIVE, OK
from fedaudit.cli.options import GATES
from fedaudit.cli.say import say
from fedaudit.cli.terminal_table import show
from fedaudit.core.errors import ConfigError
from fedaudit.core.measures import Evidence, Rate
from fedaudit.core.scenario import Study
from fedaudit.reports import build, text
from fedaudit.reports.comparison import Exposure
from fedaudit.reports.limitations import ALIKE
from fedaudit.reports.results import Results
from fedaudit.reports.text import verdict_name
from fedaudit.study.run_folder import FAILED


def require_deployed(study: Study, fail_on: str | None) -> None:
    """Refuse a gate on a study that names nothing for it to judge; said before anything runs.

    Raises:
        ConfigError: The study compares defenses.
    """
    if fail_on is None or study.audited:
        return
    labels = list(dict.fromkeys(d.label for s in study.scenarios for d in s.defenses))
    raise ConfigError(
        f"--fail-on judges what is deployed, and this study compares {len(labels)} defenses "
        f'without saying which is. Write deployed = "{labels[-1]}" at the top of the study (a '
        f"label, or a list of them: {', '.join(labels)}), or leave --fail-on out."
    )


def conclude(
    folder: Path,
    evidence: Evidence,
    *,
    fail_on: str | None = None,
    failed: Mapping[str, str] | None = None,
    jobs: int = 0,
    undone: int = 0,
) -> int:
    """Write the report of a run folder and print the verdict; returns the exit code.

    Args:
        folder: The run folder.
        evidence: What the report may show.
        fail_on: Severity from which findings fail the gate.
        failed: Messages of the jobs that failed, by key.
        jobs: How many jobs the study has.
        undone: How many of them have no result, where they were not tried now.
    """
    try:
        results = build.build_report(folder, evidence)
    except Exception:
        _say_failed(failed or {}, jobs, folder)  # it may well be the reason
        raise
    show_exposures(results)
    say(_verdict(results, len(failed or {}), undone, jobs))
    say(f"report: {folder / 'report.html'}")
    for line in (line for line in results.limitations if ALIKE in line):
        say(f"note: {line} Who they are: fedaudit names {shlex.quote(str(folder))}", err=True)
    _say_failed(failed or {}, jobs, folder)
    grave = graver(results, fail_on)
    if grave:
        say(f"gate failed: {len(grave)} findings are {fail_on} or graver", err=True)
    return exit_code(results, failed=bool(failed), gate=bool(grave))


def exit_code(results: Results, *, failed: bool, gate: bool) -> int:
    """The exit code of a finished audit; 0 also where a leak was demonstrated, or all compared."""
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
    grave = [finding.id for finding in results.findings if finding.severity in levels]
    return grave or (["headline"] if results.headline.severity in levels else [])


def _verdict(results: Results, failures: int, undone: int, jobs: int) -> str:
    kind, sentence = results.headline.kind, results.headline.sentence
    if kind == "NOT TESTED" and failures + undone:  # whatever the sentence says is not the reason
        what = _count(failures, jobs) if failures else f"{undone} of {jobs} jobs have no result"
        sentence = f"{what}, so that there is nothing to conclude from."
    name = verdict_name(kind, results.settings.reid_limit)
    return f"{name}: {sentence}"


def _count(failures: int, jobs: int) -> str:
    return f"{failures} of {max(jobs, failures)} jobs failed"


def _say_failed(failures: Mapping[str, str], jobs: int, folder: Path) -> None:
    """How many failed, the first message, and where the others stand."""
    if not failures:
        return
    messages = [" ".join(message.split()) for message in failures.values()]
    kinds = len(set(messages))
    others = f" There are {kinds - 1} other messages." if kinds > 1 else ""
    say(
        f"error: {_count(len(failures), jobs)}; the report says that they were not tested.\n"
        f"{next(iter(failures))}: {messages[0]}\n"
        f"All messages stand in {folder / FAILED}.{others} --retry-failed tries them again.",
        err=True,
    )


def show_exposures(results: Results) -> None:
    """Print the map of a study of several methods; of one method the report has it."""
    if len({e.method for e in results.exposures}) < 2:
        return
    lines: list[tuple[str, ...]] = []
    above: tuple[str, ...] = ()
    for e in results.exposures:
        scene = e.scenario if e.defense == "none" else f"{e.scenario}, {e.defense}"
        place = scene, e.artifact
        labels = place if above[:1] != place[:1] else ("", "" if above == place else e.artifact)
        prior = e.measurement.prior if e.measurement else None
        lines.append((*labels, e.attack or text.ABSENT, _rate(e.reid), _rate(prior), _result(e)))
        above = place
    show(("SCENARIO", "SENT", "ATTACK", "RE-IDENTIFIED", "PRIOR ONLY", "RESULT"), lines)


def _rate(rate: Rate | None) -> str:
    return text.ABSENT if rate is None else f"{rate.hits} of {rate.n}"


def _result(e: Exposure) -> str:
    if e.verdict == "NOT TESTED":
        return e.note or e.verdict
    return f"{e.verdict} ({e.note})" if e.note else e.verdict
