"""`fedaudit run`: run a study, or go on with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.options import (
    EVIDENCE,
    device_option,
    examples,
    fail_on_option,
    quiet_option,
    workers_option,
)
from fedaudit.study.study_file import load_study

if TYPE_CHECKING:
    from fedaudit.core.measures import Evidence


@click.command(
    epilog=examples(
        "fedaudit run study.toml --output runs/first",
        "fedaudit run study.toml --output runs/first --dry-run",
        "fedaudit run study.toml --evidence full --workers 4",
        "fedaudit run study.toml --fail-on high   # for CI",
    )
)
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run folder.  [default: runs/STUDY]"
)
@workers_option
@device_option
@click.option(
    "--evidence",
    type=click.Choice(EVIDENCE),
    help="What the report shows of faces; only full keeps originals.  [default: redacted]",
)
@fail_on_option
@click.option("--dry-run", is_flag=True, help="Say what would be run, and run nothing.")
@quiet_option
def run(
    *,
    study: Path,
    output: Path | None,
    workers: int | None,
    device: str,
    evidence: Evidence | None,
    fail_on: str | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Run STUDY, a TOML file, and write results.json and report.html into the run folder.

    A run that was interrupted, failed or was killed goes on where it stopped when the same command
    is given again.
    """
    from fedaudit.cli import plan, run_study  # noqa: PLC0415 - imports torch

    wanted = load_study(study)
    output = output or Path("runs") / study.stem
    options = run_study.Options(output, workers, evidence, fail_on, quiet, device)
    if dry_run:
        click.echo(plan.plan(wanted, options))
        return 0
    return run_study.run_study(wanted, options)
