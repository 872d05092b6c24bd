"""What changed from one run to another as cells: for terminals, Markdown and pages."""

from fedaudit.reports.differences import Differences, RowChange
from fedaudit.reports.text import ABSENT, counted, p_value, visible

HEADS = ("scenario", "defense", "attack", "before", "after", "change", "p")


def difference_table(found: Differences) -> tuple[tuple[str, ...], ...]:
    """The cells of every line under `HEADS`, without anything invisible."""
    return tuple(_line(change) for change in found.rows)


def _line(change: RowChange) -> tuple[str, ...]:
    row = change.after or change.before
    assert row
    rates = [r.reid if r else None for r in (change.before, change.after)]
    texts = [ABSENT if rate is None else counted(rate) for rate in rates]
    word = f"{change.word}: {'; '.join(change.why)}" if change.why else change.word
    cells = (row.scenario, row.defense, row.attack, *texts, word, p_value(change.p_value))
    return tuple(map(visible, cells))
