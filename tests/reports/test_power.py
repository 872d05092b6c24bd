"""No clean word of a way of searching that was not shown to find anybody."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.core.reconstruction import SearchedBy
from fedaudit.core.trial import Trial
from fedaudit.reports.comparison import Row
from fedaudit.reports.effort import ways
from fedaudit.reports.trials import Group

sys.path.insert(0, str(Path(__file__).parent))
from made_up import line, study, table

CLEAN = "NO LEAK FOUND ABOVE LIMIT"


def by(way: SearchedBy, trials: list[Trial]) -> list[Trial]:
    return [replace(trial, searched_by=way) for trial in trials]


def judged(control: list[Trial], defended: list[Trial]) -> Row:
    asked = study(defenses=("none", "dpsgd"), targets=100)
    (row,) = (row for row in table(asked, control, defended) if row.defense == "dpsgd")
    return row


@pytest.mark.parametrize("way", ["", "closed form", "spans", "maps", "gradients"])
def test_the_same_way_vouches_for_itself(way: SearchedBy) -> None:
    row = judged(by(way, line(100, 100)), by(way, line(0, 100, defense="dpsgd")))
    assert (row.verdict.kind, row.verdict.reason) == (CLEAN, "")


def test_gradients_are_not_vouched_for_by_spans() -> None:
    row = judged(by("spans", line(100, 100)), by("gradients", line(0, 100, defense="dpsgd")))
    assert (row.verdict.kind, row.verdict.reason) == ("INCONCLUSIVE", "no power")
    assert "by what layers' inputs span there, and here it searched by gradients alone" in (
        row.verdict.sentence
    )
    assert "first_fully_connected = false" in row.verdict.sentence
    maps = judged(by("spans", line(100, 100)), by("maps", line(0, 100, defense="dpsgd")))
    assert "spans_first = false" in maps.verdict.sentence


def test_one_target_that_was_searched_otherwise_is_too_many() -> None:
    defended = by("spans", line(0, 100, defense="dpsgd"))
    defended[3] = replace(defended[3], searched_by="gradients")
    assert judged(by("spans", line(100, 100)), defended).verdict.reason == "no power"


def test_a_way_must_find_half_of_the_people_by_itself() -> None:
    """Few whom gradients find beside many by spans say little of gradients."""
    control = by("spans", line(100, 100))
    defended = by("gradients", line(0, 100, defense="dpsgd"))
    for few, kind in ((40, "INCONCLUSIVE"), (50, CLEAN)):
        mixed = [replace(t, searched_by="gradients") if t.cell.target < few else t for t in control]
        assert judged(mixed, defended).verdict.kind == kind


def test_ways_of_which_none_finds_enough_vouch_for_nothing() -> None:
    parts: tuple[SearchedBy, ...] = ("spans", "maps", "closed form")
    control = [replace(t, searched_by=parts[t.cell.target % 3]) for t in line(100, 100)]
    found = judged(control, by("gradients", line(0, 100, defense="dpsgd"))).verdict
    assert found.reason == "no power"
    assert "in several ways, by none so many" in found.sentence


def test_a_leak_is_one_by_any_way() -> None:
    row = judged(by("spans", line(100, 100)), by("gradients", line(60, 100, defense="dpsgd")))
    assert row.verdict.kind == "LEAK DEMONSTRATED"


def test_ways_count_who_was_found() -> None:
    trials = [t for t in line(3, 8) if t.cell.role == "audit"]
    mixed = Group(tuple(by("spans", trials[:4]) + by("maps", trials[4:])))
    found = {way: (rate.hits, rate.n) for way, rate in ways(mixed).items() if rate}
    assert found == {"spans": (3, 4), "maps": (0, 4)}
    untested = replace(
        trials[0], images=tuple(replace(i, reidentified=None) for i in trials[0].images)
    )
    assert ways(Group((untested,))) == {"": None}
