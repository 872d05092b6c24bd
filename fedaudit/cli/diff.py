"""`fedaudit diff`: what changed from one run to another."""

from __future__ import annotations

from pathlib import Path

import click

from fedaudit.cli.options import examples, format_option
from fedaudit.cli.say import say, say_json
from fedaudit.files.atomic import write_atomically


@click.command(
    epilog=examples(
        "fedaudit diff runs/last runs/now",
        "fedaudit diff runs/last runs/now --format markdown",
        "fedaudit diff runs/last runs/now --page changes.html",
        note="“better” and “worse” are said only of lines with the same data, judge, threat model, "
        "network, batch and settings of the attack, and only where chance does not explain the "
        "difference.",
    )
)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@format_option
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page to this file instead.",
)
def diff(*, before: Path, after: Path, form: str, page: Path | None) -> int:
    """Compare two run folders: findings new or gone, and rates that became better or worse."""
    from fedaudit.cli.terminal_table import show  # noqa: PLC0415 - imports rich
    from fedaudit.reports.archive_page import (  # noqa: PLC0415 - imports torch
        difference_json,
        difference_page,
    )
    from fedaudit.reports.build import results_of  # noqa: PLC0415 - imports torch
    from fedaudit.reports.difference_table import HEADS, difference_table  # noqa: PLC0415 - torch
    from fedaudit.reports.differences import compare_runs  # noqa: PLC0415 - imports torch

    old, new = results_of(before), results_of(after)
    if page:
        names = (before.resolve().name, after.resolve().name)
        write_atomically(page, difference_page(old, new, names).encode())
        say(f"page: {page}")
        return 0
    differences = compare_runs(old, new)
    if form == "json":
        say_json(difference_json(differences))
        return 0
    for sentence in differences.unlike:
        say(f"the runs differ in {sentence}: nothing is comparable")
    lines = difference_table(differences)
    if form == "markdown":
        for cells in (HEADS, ("---",) * len(HEADS), *lines):
            say("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    else:
        show([name.upper() for name in HEADS], lines)
    for word, some in (("new", differences.new), ("gone", differences.gone)):
        for f in some:
            say(f"{word}: {f.severity}: {f.title} ({f.fingerprint})")
    for was, now in differences.changed:
        say(f"changed: {was.severity} → {now.severity}: {now.title} ({now.fingerprint})")
    return 0
