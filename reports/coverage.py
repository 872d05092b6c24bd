"""Coverage: every class of attack on shared updates, executed or not, and what came of it."""

from collections.abc import Iterable, Mapping, Sequence

from fedaudit.core.printable import first_few
from fedaudit.core.protocols import AttackCategory
from fedaudit.reports.comparison import Row
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Coverage
from fedaudit.reports.standards import IRREVERSIBILITY, MEMBERSHIP, PROPERTY, RECONSTRUCTION
from fedaudit.reports.text import counted

INFERENCE = (
    Coverage("membership inference", False, False, "—", MEMBERSHIP),
    Coverage("property inference", False, False, "—", PROPERTY),
)
"""Lines of what is inferred without rebuilding a face, where a study does not ask for it."""


def coverage(
    categories: Mapping[str, AttackCategory],
    rows: tuple[Row, ...],
    inference: Iterable[Coverage] = INFERENCE,
) -> tuple[Coverage, ...]:
    """Every class of attack on shared updates, executed or not.

    Args:
        categories: The class of each attack of the study, by its label.
        rows: The comparison.
        inference: The lines of what is inferred without rebuilding it.
    """
    measurements = [(row, row.measurement) for row in rows if row.measurement]
    lines = []
    for category in (c for c in AttackCategory if c is not AttackCategory.OTHER):
        mine = [(row, m) for row, m in measurements if categories[row.attack] is category]
        more = IRREVERSIBILITY if category is AttackCategory.TEMPLATE else ()
        in_scope = category in categories.values()
        standards = (*RECONSTRUCTION, *more)
        lines.append(Coverage(category.value, in_scope, bool(mine), _result(mine), standards))
    lines += inference
    for label in sorted(a for a, c in categories.items() if c is AttackCategory.OTHER):
        ran = any(row.attack == label for row, _ in measurements)
        result = "see the comparison" if ran else "—"
        lines.append(Coverage(f"other: {label}", True, ran, result, ()))
    return tuple(lines)


def _result(measurements: Sequence[tuple[Row, Measurement]]) -> str:
    """What came back in the worst row: a sum over defenses would look like a rate and be none."""
    rated = [(m.reid.value, row, m, m.reid) for row, m in measurements if m.reid]
    if not rated:
        return "executed; identity not tested" if measurements else "—"
    _, row, measurement, worst = max(rated, key=lambda entry: entry[0])
    verb = "match somebody in the gallery" if measurement.searched else "re-identified"
    names = dict.fromkeys(attack_name(row.attack) for row, _ in measurements)
    most = "at worst " if len(rated) > 1 else ""
    under = defense_name(row.defense)
    return f"{most}{counted(worst)} {verb} under {under} (by {first_few(names)})"
