"""The strongest attack that met a defense, and whether one that knew the defense did."""

from collections.abc import Sequence

from fedaudit.reports.comparison import Row

ADAPTED = frozenset({"known", "estimated", "none needed"})
"""Words of attacks that took the defense into account, or had nothing to take into account."""


def strongest(rows: Sequence[Row]) -> Row | None:
    """The row whose attack re-identifies most.

    Among equals one that took the defense into account, then the one with the higher SSIM.
    """
    tested = [
        (row.reid.value, row.adaptive in ADAPTED, row.strength[2], row) for row in rows if row.reid
    ]
    return max(tested, key=lambda entry: entry[:3])[3] if tested else None


def met_by_adaptive(rows: Sequence[Row]) -> bool:
    """Whether an attack that took the defense into account was measured."""
    return any(row.adaptive in ADAPTED for row in rows if row.reid)
