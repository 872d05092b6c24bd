"""`fedaudit diff`: what changed from one run to another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json

if TYPE_CHECKING:
    from fedaudit.reports.differences import Differences, RowChange


@click.command(
    epilog=examples(
        "fedaudit diff runs/last runs/now",
        "fedaudit diff runs/last runs/now --format markdown",
        note="“better” and “worse” are said only of lines with the same data, judge, threat model, "
        "network, batch and attack effort, and only where chance does not explain the difference.",
    )
)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown", "json")),
    default="text",
    show_default=True,
    help="How to print it.",
)
def diff(*, before: Path, after: Path, form: str) -> int:
    """Compare two run folders: findings new or gone, and rates that became better or worse."""
    from fedaudit.cli.terminal_table import show  # noqa: PLC0415 - imports rich
    from fedaudit.reports.build import results_of  # noqa: PLC0415 - imports torch
    from fedaudit.reports.differences import compare_runs  # noqa: PLC0415 - imports torch

    found = compare_runs(results_of(before), results_of(after))
    if form == "json":
        say_json(_plain(found))
        return 0
    for sentence in found.unlike:
        say(f"the runs differ in {sentence}: nothing is comparable")
    names = ("scenario", "defense", "attack", "before", "after", "change", "p")
    lines = [_line(change) for change in found.rows]
    if form == "markdown":
        for cells in (names, ("---",) * len(names), *lines):
            say("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    else:
        show([name.upper() for name in names], lines)
    for word, some in (("new", found.new), ("gone", found.gone)):
        for f in some:
            say(f"{word}: {f.severity}: {f.title} ({f.fingerprint})")
    for old, new in found.changed:
        say(f"changed: {old.severity} → {new.severity}: {new.title} ({new.fingerprint})")
    return 0


def _line(change: RowChange) -> tuple[str, ...]:
    from fedaudit.reports.text import ABSENT, counted, p_value, visible  # noqa: PLC0415

    row = change.after or change.before
    assert row
    rates = [r.reid if r else None for r in (change.before, change.after)]
    shown = [ABSENT if rate is None else counted(rate) for rate in rates]
    word = f"{change.word}: {'; '.join(change.why)}" if change.why else change.word
    cells = (row.scenario, row.defense, row.attack, *shown, word, p_value(change.p_value))
    return tuple(map(visible, cells))


def _plain(found: Differences) -> dict[str, object]:
    return {
        "unlike": found.unlike,
        "rows": [
            {
                "scenario": row.scenario,
                "defense": row.defense,
                "attack": row.attack,
                "before": asdict(c.before.reid) if c.before and c.before.reid else None,
                "after": asdict(c.after.reid) if c.after and c.after.reid else None,
                "change": c.word,
                "why": c.why,
                "p_value": c.p_value,
            }
            for c in found.rows
            if (row := c.after or c.before)
        ],
        "new": [asdict(f) for f in found.new],
        "gone": [asdict(f) for f in found.gone],
        "changed": [[asdict(old), asdict(new)] for old, new in found.changed],
    }
