"""What each defense buys: the strongest attack, paired differences, sweeps, recommendations."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from fedaudit.reports.columns import markdown, plain
from fedaudit.reports.comparison import DefenseLine, Row, strongest
from fedaudit.reports.defense_lines import sweeps
from fedaudit.reports.frontier import marks
from fedaudit.reports.html import render
from fedaudit.reports.recommending import recommend
from fedaudit.reports.results import Results
from fedaudit.stats.intervals import rate

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample
from sample_rows import worth

T = TypeVar("T", Row, DefenseLine)


def line(results: Results, defense: str) -> DefenseLine:
    return next(x for x in results.defenses if x.defense == defense)


def changed(entry: T, **values: object) -> T:
    """The same with other numbers in its measurement."""
    assert isinstance(entry, Row | DefenseLine)
    assert entry.measurement
    return replace(entry, measurement=replace(entry.measurement, **values))  # type: ignore[arg-type]


def one(found: DefenseLine, results: Results) -> Results:
    return replace(results, defenses=(found,))


def swept(results: Results, *values: float) -> tuple[DefenseLine, ...]:
    base = line(results, "pruning 90 %")
    return tuple(
        replace(base, defense=f"pruning-{v}", settings={"strength": v, "other": 1}) for v in values
    )


def test_the_strongest_attack_is_the_one_that_identifies_most() -> None:
    rows = [row for row in sample().rows if row.defense == "dplc" and row.scenario == "fresh-b1"]
    top = strongest(rows)
    assert top is not None
    assert top.reid is not None
    assert top.reid.hits == max(row.reid.hits for row in rows if row.reid)
    assert strongest([changed(row, reid=None) for row in rows]) is None


def test_among_equals_the_attack_that_knows_the_defense_counts() -> None:
    row = next(r for r in sample().rows if r.reid)
    assert row.measurement
    metrics = row.measurement.metrics
    like = changed(row, metrics={**metrics, "ssim": replace(metrics["ssim"], value=0.99)})
    better = replace(like, adaptive="no")
    top = strongest([better, replace(row, adaptive="known")])
    assert top is not None
    assert top.adaptive == "known"


def test_what_no_attack_knew_dominates_nothing_that_one_did() -> None:
    row = next(r for r in sample().rows if r.reid and r.utility)
    known = replace(row, defense="leaky", adaptive="known")
    leaky = changed(known, reid=rate([True] * 16))
    other = replace(changed(known, reid=rate([False] * 16)), defense="other")
    assert marks([leaky, other])[0].dominated_by == "other"
    assert marks([leaky, replace(other, adaptive="no")])[0].dominated_by is None
    blind = [replace(one, adaptive="no") for one in (leaky, other)]
    assert marks(blind)[0].dominated_by == "other"


def test_what_no_training_does_as_well_dominates_nothing() -> None:
    row = next(r for r in sample().rows if r.reid and r.utility)
    known = replace(row, defense="leaky", adaptive="known", utility=worth(0.80))
    leaky = changed(known, reid=rate([True] * 12 + [False] * 4))
    clean = changed(replace(known, defense="clean"), reid=rate([False] * 16))
    assert marks([leaky, clean])[0].dominated_by == "clean"  # by the rates' intervals
    idle = replace(clean, utility=worth(0.80, untrained=0.8))
    assert marks([leaky, idle])[0].dominated_by is None
    worse = replace(clean, utility=worth(0.79))
    assert marks([leaky, worse])[0].dominated_by is None
    near = changed(clean, reid=rate([True] * 11 + [False] * 5))
    assert marks([leaky, near])[0].dominated_by is None  # chance explains the difference
    useful = replace(near, utility=worth(0.9))
    assert marks([leaky, useful])[0].dominated_by == "clean"  # by the accuracies' interval


def test_a_sweep_is_one_number_that_varies_three_times() -> None:
    results = sample()
    assert not sweeps(results.defenses)
    ((place, lines),) = sweeps(swept(results, 0.9, 0.5, 0.99)).items()
    assert place == ("fresh-b1", "pruning", "strength")
    assert [x.settings["strength"] for x in lines] == [0.5, 0.9, 0.99]
    assert not sweeps(swept(results, 0.9, 0.5))
    mixed = swept(results, 0.9, 0.5, 0.99)
    other = replace(mixed[2], settings={"strength": 0.99, "other": 2})
    assert not sweeps((*mixed[:2], other))


def test_the_page_shows_the_curve_and_the_lines() -> None:
    results = sample()
    names = {0.5: "dplc", 0.9: "pruning 90 %", 0.99: "dpsgd ε=8"}  # that have rows
    lines = [
        replace(x, defense=names[x.settings["strength"]]) for x in swept(results, 0.5, 0.9, 0.99)
    ]
    page = render(replace(results, defenses=(line(results, "none"), *lines)), None, "none")
    assert "pruning, by strength; fresh-b1" in page
    assert "What each defense buys: fresh-b1" in page
    assert "strength = 0.99" in page


def test_a_table_has_a_cell_for_each_column_and_escapes_names() -> None:
    found = replace(line(sample(), "dplc"), defense="a|b\u202e")
    names, (cells,) = plain(one(found, sample()))
    assert len(cells) == len(names)
    text = markdown(one(found, sample()))
    assert "a\\|b⟨U+202E⟩" in text
    assert all(row.startswith("| ") for row in text.splitlines())
    nothing = {"measurement": None, "utility": None, "claims": (), "attack": None}
    _, (empty,) = plain(one(replace(found, **nothing, adaptive=None), sample()))  # type: ignore[arg-type]
    assert empty[4] == "—"


# --- recommendations ------------------------------------------------------------------------------


def clean(results: Results, n: int = 400) -> DefenseLine:
    """A defense under which nobody of n came back."""
    clean = changed(line(results, "dplc"), reid=rate([False] * n))
    return replace(clean, verdict="NO LEAK FOUND ABOVE LIMIT")


@pytest.mark.parametrize(
    ("change", "standing"),
    [
        ({}, "measured"),
        ({"reid": rate([False] * 16)}, "by estimate only"),
        ({"reid": rate([True] * 8 + [False] * 8)}, "too leaky"),
        ({"met_by_adaptive": False}, "not measured"),
        ({"verdict": "INVALID"}, "not measured"),
        ({"reid": None}, "not measured"),
        ({"utility": None}, "not measured"),
        ({"utility": worth(0.82, untrained=0.83)}, "no gain"),
        ({"utility": worth(0.805)}, "by estimate only"),
    ],
)
def test_what_was_measured_decides(change: dict[str, object], standing: str) -> None:
    results = sample()
    of_reid = "reid" in change
    found = changed(clean(results), **change) if of_reid else replace(clean(results), **change)  # type: ignore[arg-type]
    ((recommendation),) = recommend(one(found, results), max_reid=0.05, min_accuracy=0.8)
    (candidate,) = recommendation.candidates
    assert candidate.standing == standing
    assert (candidate in recommendation.satisfied) is (standing == "measured")


def test_the_cheapest_comes_first_and_the_nearest_where_none_will_do() -> None:
    results = sample()
    dear, cheap = clean(results), clean(results)
    assert dear.utility is not None
    dear = replace(dear, defense="dear", utility=replace(dear.utility, step_seconds=9.0))
    both = replace(results, defenses=(dear, cheap))
    (found,) = recommend(both, max_reid=0.05, min_accuracy=0.8)
    assert [c.line.defense for c in found.satisfied] == ["dplc", "dear"]
    (none,) = recommend(both, max_reid=0.05, min_accuracy=0.99)
    assert not none.satisfied
    assert none.candidates[0].standing == "too costly"
    leaky = line(results, "none")
    (order,) = recommend(
        replace(results, defenses=(leaky, line(results, "private_projector"))),
        max_reid=0.05,
        min_accuracy=0.5,
    )
    assert [c.line.defense for c in order.candidates] == ["private_projector", "none"]


def test_nobody_is_asked_for_more_people_than_there_are() -> None:
    results = sample()
    few = one(changed(clean(results), reid=rate([False] * 16)), results)
    for units, word in (
        ({}, "72 people without a hit would show the limit kept"),
        ({"fresh-b1": 80}, "72 people without a hit would show the limit kept"),
        ({"fresh-b1": 30}, "this data gives 30 at most: use a data set of more people"),
    ):
        (found,) = recommend(replace(few, units=units), max_reid=0.05, min_accuracy=0.8)
        assert word in found.candidates[0].why


def test_dependent_units_do_not_keep_a_limit() -> None:
    """80 people behind one sum are one unit: the interval of 80 does not keep the limit."""
    results = sample()
    many = one(changed(clean(results), reid=rate([False] * 80)), results)
    for units, standing in (
        ({"fresh-b1": 80}, "measured"),
        ({"fresh-b1": 80, "fresh-b1, dplc": 1}, "by estimate only"),
    ):
        (found,) = recommend(replace(many, units=units), max_reid=0.05, min_accuracy=0.8)
        assert found.candidates[0].standing == standing
        told = "this data gives 1 independent at most" in found.candidates[0].why
        assert told == (standing == "by estimate only")
