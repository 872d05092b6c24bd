"""A study that stops where it is decided says no more than one that does not."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_up import line, measured, study, table, trials

from fedaudit.core.scenario import Study
from fedaudit.core.trial import Trial
from fedaudit.reports.comparison import Row, Verdict
from fedaudit.reports.results import Stop
from fedaudit.reports.stopping import limits_of_stops, standing, stops, with_stop
from fedaudit.stats.sequential import looks, shares
from fedaudit.study.inventory import Inventory


def sequential(targets: int, **more: object) -> Study:
    return replace(study(targets=targets, **more), sequential=True)  # type: ignore[arg-type]


def test_an_early_leak_stops_with_wider_intervals_and_a_larger_p_value() -> None:
    made = line(4, 4)
    (early,) = table(sequential(16), made)
    (plain,) = table(study(targets=16), made)
    assert early.verdict.kind == plain.verdict.kind == "LEAK DEMONSTRATED"
    ours, theirs = measured(early), measured(plain)
    assert ours.identity is not None
    assert theirs.identity is not None
    assert ours.identity.p_value == pytest.approx(theirs.identity.p_value / shares(4)[0])
    assert ours.identity.smallest > theirs.identity.smallest
    assert ours.reid is not None
    assert theirs.reid is not None
    assert ours.excess is not None
    assert theirs.excess is not None
    assert ours.reid.low < theirs.reid.low
    assert ours.excess.low < theirs.excess.low
    (stop,) = stops(sequential(16), [early], trials(made), ())
    assert stop.decided
    assert stop.words == "stopped after 4 of 16 targets: decided"


def test_a_clean_word_takes_the_corrected_interval() -> None:
    """75 of 150: an uncorrected interval excludes 5 % already, and might not have a look before."""
    defenses = ("none", "dplc")
    asked = sequential(150, defenses=defenses)
    for n, clean in ((75, False), (113, True)):
        made = [*line(10, 10), *line(0, n, defense="dplc")]
        _, row = table(asked, made)
        _, plain = table(study(targets=150, defenses=defenses), made)
        assert plain.verdict.kind == "NO LEAK FOUND ABOVE LIMIT"
        assert (row.verdict.kind == "NO LEAK FOUND ABOVE LIMIT") is clean
        _, stop = stops(asked, table(asked, made), trials(made), ())
        assert stop.decided is clean
        assert stop.targets == n


def test_between_two_looks_the_last_one_counts() -> None:
    """Whoever interrupts a run sees the p-value of the last complete look."""
    (four,) = table(sequential(16), line(4, 4))
    (seven,) = table(sequential(16), line(4, 7))
    assert measured(seven).identity == replace(
        measured(four).identity,  # type: ignore[type-var]
        adjusted=measured(seven).identity.adjusted,  # type: ignore[union-attr]
    )
    (stop,) = stops(sequential(16), [seven], trials(line(4, 7)), ())
    assert (stop.targets, stop.look) == (4, 1)


def test_a_failed_last_target_does_not_hold_a_look_up() -> None:
    asked, made = sequential(16), line(3, 7)
    key = "fresh--none--inverting_gradients--audit--t007--s0"
    (before,) = stops(asked, table(asked, made), trials(made), ())
    (after,) = stops(asked, table(asked, made), trials(made), (key,))
    assert (before.targets, after.targets) == (4, 8)


def _standing(
    asked: Study, made: list[Trial], lacking: tuple[str, ...], failed: tuple[str, ...] = ()
) -> tuple[tuple[Row, ...], tuple[Stop, ...], tuple[str, ...]]:
    stock = Inventory((), lacking, {}, dict.fromkeys(failed, "it failed"))
    return standing(asked, stock, trials(made), table(asked, made))


def test_what_a_decided_defense_needs_no_more_is_not_lacking() -> None:
    asked = sequential(150, defenses=("none", "dplc"))
    made = [*line(10, 10), *line(0, 113, defense="dplc")]

    def cells(defense: str, *targets: int, attack: str = "inverting_gradients") -> tuple[str, ...]:
        return tuple(f"fresh--{defense}--{attack}--audit--t{t:03d}--s0" for t in targets)

    beyond = (*cells("none", 10, 149), *cells("dplc", 113, 149))
    done, stopped, lacking = _standing(asked, made, beyond)
    assert lacking == ()
    assert [stop.decided for stop in stopped] == [True, True]
    assert done[1].verdict.kind == "NO LEAK FOUND ABOVE LIMIT"
    assert done[1].verdict.sentence.endswith("Stopped after 113 of 150 targets: decided.")
    assert "looks" in next(limits_of_stops(stopped))
    # One that should be there takes the clean word, so that nothing is decided or spared.
    hole = cells("dplc", 50)
    done, stopped, lacking = _standing(asked, made, (*beyond, *hole), failed=hole)
    assert done[1].verdict.kind == "INCONCLUSIVE"
    assert not stopped[1].decided
    assert {*lacking} == {*cells("dplc", 113, 149), *hole}
    # As does one of the control without a defense, on which its word rests.
    done, stopped, _ = _standing(asked, made, (*beyond, *cells("none", 3)))
    assert done[1].verdict.kind == "INCONCLUSIVE"


def test_a_headline_says_where_its_row_stopped_and_once() -> None:
    asked, made = sequential(16), line(4, 4)
    (row,), stopped, _ = _standing(asked, made, ())
    leak = Verdict("LEAK DEMONSTRATED", "Nobody was safe.", "high")
    told = with_stop(leak, row, stopped)
    assert told.sentence == "Nobody was safe. Stopped after 4 of 16 targets: decided."
    assert with_stop(told, row, stopped) == told
    assert with_stop(row.verdict, row, stopped) == row.verdict
    assert with_stop(leak, None, stopped) == leak
    assert with_stop(leak, replace(row, defense="dplc"), stopped) == leak


def test_a_study_without_looks_is_as_ever() -> None:
    made = line(4, 8)
    done, stopped, lacking = _standing(study(targets=8), made, ("a",))
    assert done == table(study(targets=8), made)
    assert stopped == ()
    assert lacking == ("a",)
    assert not list(limits_of_stops(stopped))


def test_at_all_targets_nothing_is_said_of_stopping() -> None:
    asked, made = sequential(8), line(1, 8)
    done, (stop,), _ = _standing(asked, made, ())
    assert stop.look == len(looks(8))
    assert "topped after" not in done[0].verdict.sentence
