"""Do matches that may only be chance come more often than chance? Judged row by row.

A negative control has many rows (defenses, attacks), and the same few people in all of them. To
count a person as soon as any row matches gives chance more tries with every row, until nothing can
fail; here each row is judged by itself, and the error level is shared out over the rows
(Bonferroni), so that nothing need be known of how rows hang together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy.stats import binom

from fedaudit.core.measures import Rate
from fedaudit.stats.intervals import rate

ERROR = 0.025
"""Share of studies in which chance alone fails a control: what a two-sided 95 % interval leaves
below it. Two such controls together fail by chance in 5 % of studies at most."""

Row = Sequence[Sequence[bool]]
"""Of each independent unit, whether each of its tries matched; at least one try a unit."""


@dataclass(frozen=True)
class RareMatches:
    """The row that fits chance worst.

    Attributes:
        row: Its number.
        rate: How many of its units matched.
        half: They matched in at least half of their tries; else in any.
        p_value: Of it, corrected for all that was tested.
        smallest: What that would be at the least in any row, if every try had matched. Above
            `ERROR` the control cannot fail, which is no evidence that it holds.
    """

    row: int
    rate: Rate
    half: bool
    p_value: float
    smallest: float

    @property
    def held(self) -> bool | None:
        """Whether no row is worse than chance; None where that could not have shown."""
        return None if self.smallest > ERROR else self.p_value > ERROR


def rare_matches(rows: Sequence[Row], chance: float, units: Sequence[str]) -> RareMatches:
    """Judge rows in which each try may match with probability `chance` at most.

    Units are independent; tries of one unit, and rows, may depend on each other in any way: a unit
    of t tries matches in any of them with probability t × `chance` at most, and in half of them or
    more with 2 × `chance` (Markov), which no number of tries dilutes.

    Args:
        rows: At least one, none of them empty.
        chance: Largest probability of a match that is allowed, for one try.
        units: What is counted in each row, in the plural.
    """
    found: list[RareMatches] = []
    for number, row in enumerate(rows):
        most = max(map(len, row))
        tests = [(False, min(1.0, most * chance), [any(tries) for tries in row])]
        if most > 2:  # of two tries, any is half
            often = [2 * sum(tries) >= len(tries) for tries in row]
            tests.append((True, min(1.0, 2 * chance), often))
        for half, limit, hits in tests:
            p, least = (_tail(count, len(row), limit) for count in (sum(hits), len(row)))
            found.append(RareMatches(number, rate(hits, units[number]), half, p, least))
    worst = min(found, key=lambda one: one.p_value)
    smallest = min(one.smallest for one in found)
    return RareMatches(
        worst.row,
        worst.rate,
        worst.half,
        min(1.0, worst.p_value * len(found)),
        min(1.0, smallest * len(found)),
    )


@lru_cache(maxsize=4096)
def _tail(hits: int, n: int, limit: float) -> float:
    """Probability of so many hits or more."""
    return float(binom.sf(hits - 1, n, limit))
