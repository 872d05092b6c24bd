"""What `run` and `demo` share: run a study, show progress, write the report, say the verdict."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from fedaudit.cli.console import progress
from fedaudit.cli.ending import INTERRUPTED
from fedaudit.cli.verdict import conclude
from fedaudit.config import Study
from fedaudit.errors import StorageError
from fedaudit.reports.results import Evidence
from fedaudit.running import session
from fedaudit.running.executor import default_workers


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what."""

    output: Path
    workers: int | None = None
    evidence: Evidence | None = None
    fail_on: str | None = None
    quiet: bool = False


def run_study(study: Study, options: Options) -> int:
    """Run a study, show progress, write the report, print the verdict; returns the exit code."""
    again = shlex.join(["fedaudit", *sys.argv[1:]])
    try:
        with session.open_run(
            options.output, study, command=again, evidence=options.evidence
        ) as opened:
            _say_state(opened)
            workers = options.workers or default_workers()
            with progress(opened.todo, workers, quiet=options.quiet) as show:
                outcomes = session.run(opened, workers=workers, on_event=show)
            _, code = conclude(
                options.output,
                opened.manifest.evidence,
                fail_on=options.fail_on,
                failed=session.failures(outcomes),
                jobs=len(opened.jobs),
            )
            return code
    except KeyboardInterrupt:
        click.echo(f"interrupted; what was finished is kept. Go on with:\n  {again}", err=True)
        return INTERRUPTED
    except StorageError as error:
        raise StorageError(f"{error}\n  {again}") from error


def _say_state(opened: session.Opened) -> None:
    for message in opened.stock.damaged.values():
        click.echo(f"note: {message}", err=True)
    if done := len(opened.jobs) - len(opened.todo):
        click.echo(f"{done} of {len(opened.jobs)} jobs were done before", err=True)
