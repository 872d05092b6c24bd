"""What `run` and `demo` share: run a study, show progress, write the report, say the verdict."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from fedaudit import assets
from fedaudit.asset_table import ASSETS
from fedaudit.cli.console import progress
from fedaudit.cli.ending import INTERRUPTED
from fedaudit.cli.verdict import conclude
from fedaudit.config import Study
from fedaudit.errors import AssetError, StorageError
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
            if opened.todo:
                _fetch(study)
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


def _fetch(study: Study) -> None:
    """Get what every job would wait for, once, before the workers start.

    Raises:
        AssetError: Something that no job can do without is neither cached nor fetchable.
    """
    attacks = {choice.name for scenario in study.scenarios for choice in scenario.attacks}
    needed = [study.data.name] if study.data.name in ASSETS else []
    needed += ["face_gan"] if "gan_inversion" in attacks or study.data.name == "synthetic" else []
    for name in (*needed, "lpips_alex"):
        assets.path(name, say=_note)
    try:
        assets.path("face_embedder", say=_note)
    except AssetError as error:
        click.echo(f"note: identity will not be tested: {error}", err=True)


def _note(message: str) -> None:
    click.echo(message, err=True)


def _say_state(opened: session.Opened) -> None:
    for message in opened.stock.damaged.values():
        click.echo(f"note: {message}", err=True)
    if done := len(opened.jobs) - len(opened.todo):
        click.echo(f"{done} of {len(opened.jobs)} jobs were done before", err=True)
