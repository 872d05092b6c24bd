"""Which defenses a study has decided, so that it attacks no more targets under them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from fedaudit.core.scenario import Study
from fedaudit.core.trial import POSITIVE
from fedaudit.reports.comparison import Row, Verdict, VerdictKind
from fedaudit.reports.looks import targets_seen
from fedaudit.reports.power import with_all_cells
from fedaudit.reports.results import Stop
from fedaudit.reports.trials import Trials
from fedaudit.reports.verdicts import standing_row
from fedaudit.stats.sequential import looks
from fedaudit.study.inventory import Inventory

DECIDED: frozenset[VerdictKind] = frozenset({"LEAK DEMONSTRATED", "NO LEAK FOUND ABOVE LIMIT"})
"""Verdicts by which a defense is done with."""
_CELL = re.compile(r"(.+?)--(.+?)--(.+?)--(.+?)--t(\d+)--s\d+")
"""Parts of a cell's key; the names in it have no two hyphens in a row (`SAFE_NAME`)."""


def standing(
    study: Study, stock: Inventory, trials: Trials, table: tuple[Row, ...]
) -> tuple[tuple[Row, ...], tuple[Stop, ...], tuple[str, ...]]:
    """What rows say given the cells that are lacking; where each defense stopped; those cells.

    A cell that a decided defense needs no more is not lacking.
    """
    lacking = (*stock.missing, *stock.damaged)
    further = beyond(stops(study, table, trials, stock.failed), lacking)
    table = with_all_cells(table, [key for key in lacking if key not in further])
    stopped = stops(study, table, trials, stock.failed)
    spared = beyond([stop for stop in stopped if stop.decided], lacking)
    lacking = tuple(key for key in lacking if key not in spared)
    return with_stops(with_all_cells(table, lacking), stopped), stopped, lacking


def stops(
    study: Study, table: Sequence[Row], trials: Trials, failed: Collection[str]
) -> tuple[Stop, ...]:
    """Where each defense of each scenario stands; () of a study without looks.

    Args:
        study: What was asked.
        table: Its rows, as far as they go.
        trials: What came of it.
        failed: Keys of the cells that failed, which are over, too.
    """
    if not study.sequential:
        return ()
    over = _targets_by_line(failed)
    found = []
    for scenario in study.scenarios:
        of = looks(scenario.targets)
        for defense in scenario.defenses:
            seen = []
            for attack in scenario.attacks:
                line = (scenario.name, defense.label, attack.label)
                if trials.idle(*line) and not trials.group(*line):
                    continue  # it reads nothing of what is sent, and needs no targets
                seen.append(targets_seen(trials.group(*line), scenario.targets, over.get(line, ())))
            rows = [r for r in table if (r.scenario, r.defense) == line[:2] and r.reid]
            targets = min(seen, default=0)
            decided = bool(rows and targets) and standing_row(rows).verdict.kind in DECIDED
            look = sum(n <= targets for n in of)
            most = scenario.targets
            found.append(Stop(*line[:2], targets, most, look, len(of), decided))
    return tuple(found)


def _targets_by_line(keys: Collection[str]) -> Mapping[tuple[str, str, str], set[int]]:
    lines: dict[tuple[str, str, str], set[int]] = {}
    for key in keys:
        if (match := _CELL.fullmatch(key)) and match[4] == "audit":
            lines.setdefault((match[1], match[2], match[3]), set()).add(int(match[5]))
    return lines


def beyond(stopped: Sequence[Stop], keys: Collection[str]) -> frozenset[str]:
    """Those of the cells that lie beyond the last complete look at their defense."""
    after = {(stop.scenario, stop.defense): stop.targets for stop in stopped}
    found = set()
    for key in keys:
        match = _CELL.fullmatch(key)
        if match and match[4] not in POSITIVE:
            found |= {key} if int(match[5]) >= after.get((match[1], match[2]), 1 << 62) else set()
    return frozenset(found)


def with_stops(table: Sequence[Row], stopped: Sequence[Stop]) -> tuple[Row, ...]:
    """The rows, where the verdict on a decided defense says after how many targets it was."""
    return tuple(
        replace(row, verdict=with_stop(row.verdict, row, stopped)) if row.reid else row
        for row in table
    )


def with_stop(verdict: Verdict, row: Row | None, stopped: Sequence[Stop]) -> Verdict:
    """A verdict on a row; on a decided defense it says after how many targets it was."""
    for stop in stopped if row else ():
        mine = row and (stop.scenario, stop.defense) == (row.scenario, row.defense)
        words = f"{stop.words[0].upper()}{stop.words[1:]}."
        if mine and stop.decided and stop.targets < stop.of and words not in verdict.sentence:
            return replace(verdict, sentence=f"{verdict.sentence} {words}")
    return verdict


def limits_of_stops(stopped: Sequence[Stop]) -> Iterator[str]:
    """What a study gives up that ends where it is decided."""
    early = [s for s in stopped if s.decided and s.targets < s.of]
    if early:
        each = "; ".join(f"{s.scenario}, {s.defense} {s.words}" for s in early)
        yield (
            f"{each}. Rates, their excess and the test on identity allow for up to "
            f"{max(s.looks for s in early)} looks; a rate is as unsure as so few targets leave it, "
            "and with it the severity: without sequential = true all targets are attacked."
        )
