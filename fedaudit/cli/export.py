"""`fedaudit export`: a run's findings and numbers in the formats that other tools read."""

from __future__ import annotations

from pathlib import Path

import click

from fedaudit.cli.options import examples, output_file
from fedaudit.cli.say import say
from fedaudit.files.atomic import write_atomically

FORMATS = ("sarif", "junit", "markdown", "csv", "json")


@click.command(
    epilog=examples(
        "fedaudit export runs/first --format sarif --output fedaudit.sarif",
        "fedaudit export runs/first --format junit --output fedaudit.xml",
        "fedaudit export runs/first --format markdown   # for a pull request",
        "fedaudit export runs/first --format csv > defenses.csv",
        note="A finding has the same fingerprint in all of them.",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    required=True,
    help="sarif 2.1.0 (code scanning), junit (tests), markdown (a comment on a pull request); csv "
    "and json are of the defenses.",
)
@click.option(
    "--location",
    default="study.toml",
    show_default=True,
    help="Of sarif: the file of your repository at which alerts are shown.",
)
@output_file("Write to this file instead of the terminal.")
def export(*, run: Path, form: str, location: str, output: Path | None) -> int:
    """Write what the run folder RUN found in a format that other tools read.

    Nothing of it holds a face.
    """
    from fedaudit.reports.build import results_of  # noqa: PLC0415 - imports torch
    from fedaudit.reports.junit import junit  # noqa: PLC0415 - imports torch
    from fedaudit.reports.league import csv_of, json_of  # noqa: PLC0415 - imports torch
    from fedaudit.reports.pull_request import pull_request  # noqa: PLC0415 - imports torch
    from fedaudit.reports.sarif import sarif  # noqa: PLC0415 - imports torch

    results = results_of(run)
    text = {
        "sarif": lambda: sarif(results, location),
        "junit": lambda: junit(results),
        "markdown": lambda: pull_request(results),
        "csv": lambda: csv_of(results),
        "json": lambda: json_of(results),
    }[form]()
    if output:
        write_atomically(output, text.encode())
        say(f"written: {output}")
    else:
        say(text.rstrip("\n"))
    return 0
