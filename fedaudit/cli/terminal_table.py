"""Tables on stdout: drawn by rich on a terminal, aligned plain text elsewhere."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedaudit.cli.say import say
from fedaudit.core.printable import printable

COLORS = {
    "ok": "green",
    "present": "green",
    "yours": "green",
    "note": "yellow",
    "missing": "yellow",
    "guarantee": "green",
    "heuristic": "yellow",
    "no claim": "yellow",
    "contradicted": "bold red",
    "problem": "bold red",
    "damaged": "bold red",
}


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a cell that is one of `COLORS` gets its color, unless NO_COLOR is set."""
    rows = [[printable(cell) for cell in row] for row in rows]
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        _plain((columns, *rows))
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, style=COLORS.get(cell, "")) for cell in row))
    console.print(table)


def _plain(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())
