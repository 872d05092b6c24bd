"""The place among reference federations: only of like with like, counted as it says."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample

from fedaudit.core.measures import Rate
from fedaudit.reports import reference_scale
from fedaudit.reports.comparison import Row
from fedaudit.reports.html import render
from fedaudit.reports.reference_scale import Reference, read_references, scale
from fedaudit.reports.results import Results
from fedaudit.reports.view import headline_row


@pytest.fixture
def case() -> tuple[Results, Row]:
    results = sample()
    row = headline_row(results)
    assert row is not None
    assert row.reid is not None
    return results, row


def references(results: Results, row: Row, **other: Any) -> tuple[Reference, ...]:
    """Eleven of a kind with the row, with rates from 0 to 1."""
    size = next(c.image_size for c in results.ceilings if c.scenario in {row.scenario, "all"})
    assert row.reid is not None
    one = Reference(
        data="orl",
        size=size,
        network="face",
        method="fedavg",
        round=1,
        batch_size=1,
        steps=1,
        defense="none",
        settings={},
        attack="dlg",
        threat_model=row.threat_model,
        hits=0,
        n=10,
        unit=row.reid.unit,
        date="2026-11-26",
        build="0.1.0",
    )
    return tuple(replace(one, hits=k, **other) for k in range(11))


def test_it_counts(case: tuple[Results, Row], monkeypatch: pytest.MonkeyPatch) -> None:
    results, row = case
    half = Rate(5, 10, 0.5, 0.2, 0.8, row.reid.unit)  # type: ignore[union-attr]
    assert row.measurement is not None
    row = replace(row, measurement=replace(row.measurement, reid=half))
    monkeypatch.setattr(reference_scale, "read_references", lambda: references(results, row))
    found = scale(results, row)
    assert found is not None
    assert (found.lower, found.equal, found.higher, found.count) == (5, 1, 5, 11)


@pytest.mark.parametrize(
    "other", [{"size": 7}, {"threat_model": "A"}, {"unit": "groups of updates"}]
)
def test_what_is_not_alike_is_not_compared(
    case: tuple[Results, Row], other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlike = references(*case, **other)
    monkeypatch.setattr(reference_scale, "read_references", lambda: unlike)
    assert scale(*case) is None


def test_recordings_pictures_and_few_references_have_no_place(
    case: tuple[Results, Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, row = case
    known = references(results, row)
    monkeypatch.setattr(reference_scale, "read_references", lambda: known)
    assert scale(results, row) is not None
    assert scale(results, None) is None
    few = Rate(4, 4, 1.0, 0.4, 1.0, row.reid.unit)  # type: ignore[union-attr]
    assert row.measurement is not None
    assert scale(results, replace(row, measurement=replace(row.measurement, reid=few))) is None
    assert scale(replace(results, subject="images"), row) is None
    recorded = replace(results.provenance, data="recorded")
    assert scale(replace(results, provenance=recorded), row) is None
    monkeypatch.setattr(reference_scale, "read_references", lambda: known[:9])
    assert scale(results, row) is None


@pytest.mark.slow
def test_the_page_says_it(case: tuple[Results, Row], monkeypatch: pytest.MonkeyPatch) -> None:
    results, row = case
    monkeypatch.setattr(reference_scale, "read_references", lambda: references(results, row))
    shown = render(results, None, "redacted")
    assert "of 11 federations that were attacked here for comparison" in shown
    assert "no probability" in shown
    assert "11 fresh models and 0 trained ones, 10 people each" in shown
    monkeypatch.setattr(reference_scale, "read_references", lambda: ())
    assert "for comparison" not in render(results, None, "redacted")


def test_what_ships_is_whole() -> None:
    known = read_references()
    assert all(0 <= one.hits <= one.n and one.n >= 3 for one in known if one.unit == "people")
    places = [
        (o.size, o.network, o.round, o.batch_size, o.defense, str(o.settings), o.steps)
        for o in known
    ]
    assert len(places) == len(set(places))
