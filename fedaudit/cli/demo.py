"""`fedaudit demo`: a whole audit without a study file."""

from dataclasses import replace
from pathlib import Path

import click

from fedaudit.cli.ending import FAILURE, INTERRUPTED, OK
from fedaudit.cli.options import (
    RunOptions,
    device_option,
    examples,
    job_limit_option,
    quiet_option,
    workers_option,
)


@click.command(
    epilog=examples(
        "fedaudit demo --quick",
        "fedaudit demo --output demo-run --workers 2",
        "fedaudit demo --seed 1",
    )
)
@click.option("--quick", is_flag=True, help="A few minutes; too small to conclude from.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run folder.  [default: demo-run…]"
)
@workers_option
@device_option
@job_limit_option
@click.option("--seed", type=click.IntRange(min=0, max=2**31 - 1), help="Another draw.")
@quiet_option
def demo(
    *,
    quick: bool,
    output: Path | None,
    workers: int | None,
    device: str,
    job_limit: float | None,
    seed: int | None,
    quiet: bool,
) -> int:
    """Audit a small federation of real, freely usable faces, and write its report.

    The report shows the faces: they are published for such use. Exits with 0 whenever the audit
    was completed, whatever it found.
    """
    from fedaudit.cli.run_study import run_study  # noqa: PLC0415 - imports torch
    from fedaudit.study import demo_study as studies  # noqa: PLC0415 - imports torch

    study = studies.study(quick)
    if seed is not None:
        study = replace(study, seeds=(seed,))
    name = f"demo-run{'-quick' if quick else ''}{'' if seed is None else f'-seed{seed}'}"
    options = RunOptions(workers, device, "full", quiet=quiet, job_limit=job_limit)
    code = run_study(study, output or Path(name), options)
    return code if code in {FAILURE, INTERRUPTED} else OK
