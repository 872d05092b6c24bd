"""`fedaudit compare`: what each defense of a run buys, as a table."""

from __future__ import annotations

from pathlib import Path

import click

from fedaudit.cli.options import examples, format_option
from fedaudit.cli.say import say, say_json


@click.command(
    epilog=examples(
        "fedaudit compare runs/defenses",
        "fedaudit compare runs/defenses --format markdown > docs/table.md",
        "fedaudit compare runs/defenses --format json",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@format_option
def compare(*, run: Path, form: str) -> int:
    """Print what each defense of the run folder RUN buys: leakage, utility and cost side by side.

    One line a defense, under the strongest attack that was run against it, and the rates of blind
    and adapted attacks apart. Nothing is written.
    """
    from fedaudit.cli.terminal_table import show  # noqa: PLC0415 - imports rich
    from fedaudit.reports.build import results_of  # noqa: PLC0415 - imports torch
    from fedaudit.reports.columns import markdown, plain  # noqa: PLC0415 - imports torch
    from fedaudit.reports.serialization import adapter  # noqa: PLC0415 - imports torch

    results = results_of(run)
    if form == "json":
        lines = adapter().dump_python(results, mode="json")["defenses"]
        say_json(lines)
    elif form == "markdown":
        say(markdown(results))
    else:
        names, rows = plain(results)
        show([n.upper() if n.isascii() else n for n in names], rows)  # Ε would read as E
    return 0
