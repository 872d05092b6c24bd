"""`--set` of the benchmarks: a constant changes where it is imported, and nowhere else."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
settings = import_module("tuning").settings

EVIDENCE, SCHEDULES = "attacks.evidence", "attacks.search.schedules"


def module(name: str) -> Any:
    return import_module(f"fedaudit.{name}")


def test_a_constant_changes_where_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [module(f"{SCHEDULES}.{name}") for name in ("span_stages", "waves", "suited")]
    for place in places:
        monkeypatch.setattr(place, "SPAN_FADING", place.SPAN_FADING)  # given back afterwards
    assert settings([f"{SCHEDULES}.span_stages.SPAN_FADING=3.5", "steps=7"]) == {"steps": 7}
    assert [place.SPAN_FADING for place in places] == [3.5, 3.5, 3.5]


def test_another_of_the_same_name_and_value_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    placing, solver = module(f"{EVIDENCE}.token_placing"), module(f"{EVIDENCE}.labels.solver")
    assert placing.STARTS == solver.STARTS
    monkeypatch.setattr(placing, "STARTS", placing.STARTS)
    monkeypatch.setattr(solver, "STARTS", solver.STARTS)
    settings([f"{EVIDENCE}.token_placing.STARTS=1"])
    assert (placing.STARTS, solver.STARTS) == (1, 4)


def test_what_is_no_constant_is_told() -> None:
    with pytest.raises(SystemExit, match="no constant"):
        settings([f"{EVIDENCE}.token_placing.NOTHING=1"])
