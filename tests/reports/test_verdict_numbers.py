"""Which of several numbers a verdict rests on, at its very edge: found by mutation testing."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.core.measures import IdentityTest
from fedaudit.reports.comparison import Row
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.power import lack_of_power, short_of
from fedaudit.reports.verdicts import is_demonstrated, judge, model_in_words

sys.path.insert(0, str(Path(__file__).parent))
from made_up import SETTINGS, line, measured, study, table

TEST = IdentityTest(0.01, 6.0, 8, 8, 30, 1e-6, exact=False, adjusted=0.01)


def rows_of(hits: int, n: int) -> tuple[Row, Row]:
    """A deployed row, in which nobody came back, and its control."""
    asked = study(defenses=("none", "dpsgd"), targets=n, deployed=("dpsgd",))
    made = table(asked, line(hits, n), line(0, n, defense="dpsgd"))
    control, deployed = sorted(made, key=lambda row: not row.undefended)
    return deployed, control


def found_out(**changes: object) -> Measurement:
    """What was measured of a row, with that test on identity."""
    return replace(measured(rows_of(8, 8)[0]), identity=replace(TEST, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("adjusted", "leak"), [(0.05, True), (0.051, False)])
def test_a_leak_rests_on_the_corrected_p_value(adjusted: float, leak: bool) -> None:
    assert is_demonstrated(found_out(adjusted=adjusted)) == leak


@pytest.mark.parametrize(("smallest", "few"), [(0.05, False), (0.051, True)])
def test_too_few_people_are_told_where_no_outcome_could_show_a_leak(
    smallest: float, few: bool
) -> None:
    sentence = judge(
        found_out(adjusted=0.2, smallest=smallest), SETTINGS, passive=True, valid=True
    ).sentence
    assert ("so few people cannot show a leak" in sentence) == few


@pytest.mark.parametrize(("over", "words"), [(None, "(p = —)"), (0.3, "(p = 0.300)")])
def test_the_p_value_over_the_control_is_told(over: float | None, words: str) -> None:
    guarded = found_out(adjusted=1.0, guarded=True, over_control=over, beside="trained on them")
    verdict = judge(guarded, SETTINGS, passive=True, valid=True)
    assert verdict.reason == "source not shown"
    assert words in verdict.sentence.replace("\N{NO-BREAK SPACE}", " ")


def test_the_models_state_is_told() -> None:
    row = rows_of(8, 8)[0]
    assert model_in_words(replace(row, round=1, model_state="")) == "a fresh model"
    assert model_in_words(replace(row, round=2, model_state="")) == "a trained model (round 2)"
    assert model_in_words(replace(row, model_state="the model of June")) == "the model of June"


@pytest.mark.parametrize(("hits", "enough"), [(19, True), (18, False)])
def test_half_of_the_ceiling_is_the_least_that_shows_power(hits: int, enough: bool) -> None:
    """19 of 40 are half of a ceiling of 95 %."""
    deployed, control = rows_of(hits, 40)
    assert (lack_of_power(deployed, control, 0.95)[0] == "") == enough
    assert lack_of_power(deployed, control, None)[0] == "no power"


def test_a_control_of_whom_nobody_was_identified_is_none() -> None:
    deployed, control = rows_of(40, 40)
    blind = replace(control, measurement=replace(measured(control), reid=None))
    for missing in (None, blind, replace(control, measurement=None)):
        assert lack_of_power(deployed, missing, 0.95)[0] == "no undefended control"


def test_an_effort_that_is_not_known_is_not_enough() -> None:
    deployed, _ = rows_of(40, 40)
    silent = replace(deployed, measurement=replace(measured(deployed), effort=None))
    assert short_of(deployed) == ("", "")
    assert short_of(silent)[0] == "unconverged"
    assert "not known" in short_of(silent)[1]


@pytest.mark.parametrize(("most", "clean"), [(None, True), (80, True), (79, False), (1, False)])
def test_no_clean_word_on_more_units_than_the_data_give(most: int | None, clean: bool) -> None:
    """0 of 80 people behind one sum are one unit: the interval of 80 is not theirs."""
    asked = study(targets=80, deployed=("none",))
    none = replace(measured(table(asked, line(0, 80))[0]), identity=None)
    verdict = judge(none, SETTINGS, passive=True, valid=True, most=most)
    assert (verdict.kind == "NO LEAK FOUND ABOVE LIMIT") == clean
    if not clean:
        assert verdict.reason == "data too small"
        assert f"this data gives {most} independent at most" in verdict.sentence
