"""`fedaudit run`: run a study, or go on with one."""

from functools import partial
from pathlib import Path

import click

from fedaudit.cli.options import RunOptions, examples, run_options, say_code
from fedaudit.cli.photos import align_photos
from fedaudit.study.named_code import refuse_code
from fedaudit.study.study_file import load_study


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
@click.option("--load-code", is_flag=True, help="Let --dry-run import the code that STUDY names.")
@run_options
def run(*, study: Path, output: Path | None, load_code: bool, options: RunOptions) -> int:
    """Run STUDY, a TOML file, and write results.json and report.html into the run folder.

    A run that was interrupted, failed or was killed goes on where it stopped when the same command
    is given again. A name such as package.module:object in STUDY is code, and it is run.
    """
    from fedaudit.cli.run_study import run_study  # noqa: PLC0415 - imports torch

    on_code = refuse_code if options.dry_run and not load_code else say_code
    plan = load_study(study, on_code=on_code, on_photos=partial(align_photos, quiet=options.quiet))
    return run_study(plan, output or Path("runs") / study.stem, options)
