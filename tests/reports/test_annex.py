"""The annex says what ran, and "not tested" of all else; nothing is a constant."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample

from fedaudit.reports.annex import AnnexRow, annex
from fedaudit.reports.results import Coverage, Results


def _tested(results: Results) -> dict[str, AnnexRow]:
    return {f"{row.standard} {row.clause}": row for row in annex(results) if row.tested}


def test_a_clause_is_tested_if_a_class_of_attack_that_it_names_ran() -> None:
    rows = _tested(sample())
    assert any("NISTAML.032" in name for name in rows)
    assert not any("NISTAML.033" in name or "irreversibility" in name for name in rows)
    line = Coverage("membership inference", True, True, "AUC 0.71", ("NIST AI 100-2 NISTAML.033",))
    more = _tested(replace(sample(), coverage=(*sample().coverage, line)))
    (added,) = set(more) - set(rows)
    assert "NISTAML.033" in added
    assert more[added].tested == "membership inference: AUC 0.71"


def test_of_a_run_that_measured_nothing_no_clause_was_tested() -> None:
    nothing = replace(
        sample(), coverage=(), rows=(), headline_row=None, ceilings=(), defenses=(), controls=()
    )
    assert not _tested(nothing)
    assert len(annex(nothing)) == len(annex(sample()))


def test_laws_are_answered_by_the_row_of_the_headline_and_measures_only_if_deployed() -> None:
    results = replace(sample(), deployed=("dpsgd",))
    assert results.headline_row is not None
    reid = results.rows[results.headline_row].reid
    assert reid is not None
    gdpr = [row for name, row in _tested(results).items() if "Art." in name]
    assert len(gdpr) == 3
    assert all(f"{reid.hits} of {reid.n}" in row.tested for row in gdpr)
    for nothing in ((), ("none",)):
        tested = _tested(replace(results, deployed=nothing))
        assert not any("32(1)(d)" in name for name in tested)
