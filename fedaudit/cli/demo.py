"""`fedaudit demo`: two whole audits without a study file."""

from dataclasses import replace
from pathlib import Path

import click

from fedaudit.cli.ending import FAILURE, INTERRUPTED, OK
from fedaudit.cli.options import (
    RunOptions,
    examples,
    quiet_option,
    retry_failed_option,
)
from fedaudit.cli.place_options import place_options
from fedaudit.study.executors.choice import Place


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
@place_options()
@retry_failed_option
@click.option("--seed", type=click.IntRange(min=0, max=2**31 - 1), help="Another draw.")
@quiet_option
def demo(
    *,
    quick: bool,
    output: Path | None,
    place: Place,
    retry_failed: bool,
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
    options = RunOptions(place, "full", quiet=quiet, retry_failed=retry_failed)
    beside = folder.with_name(f"{folder.name}-color")
    for study, run in ((studies.study(quick), folder), (studies.color_study(quick), beside)):
        version = study if seed is None else replace(study, seeds=(seed,))
        code = run_study(version, run, options)
        if code in {FAILURE, INTERRUPTED}:
            return code
    return OK
