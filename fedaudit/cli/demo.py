"""`fedaudit demo`: two whole audits without a study file."""

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
@click.option("--quick", is_flag=True, help="A minute or two; too small to conclude from.")
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
    """Audit two small federations, and write a report of each.

    One is of 40 real people, gray, at 32 pixels, in the run folder: the rates. The other is of
    people who do not exist, in color, at 64 pixels, through a stock network, in a folder beside it
    whose name ends with -color: the pictures. Reports show the faces: they are published for such
    use. Exits with 0 whenever both were completed, whatever they found.
    """
    from fedaudit.cli.run_study import run_study  # noqa: PLC0415 - imports torch
    from fedaudit.study import demo_study as studies  # noqa: PLC0415 - imports torch

    name = f"demo-run{'-quick' if quick else ''}{'' if seed is None else f'-seed{seed}'}"
    folder = output or Path(name)
    options = RunOptions(workers, device, "full", quiet=quiet, job_limit=job_limit)
    beside = folder.with_name(f"{folder.name}-color")
    for study, place in ((studies.study(quick), folder), (studies.color_study(quick), beside)):
        asked = study if seed is None else replace(study, seeds=(seed,))
        code = run_study(asked, place, options)
        if code in {FAILURE, INTERRUPTED}:
            return code
    return OK
