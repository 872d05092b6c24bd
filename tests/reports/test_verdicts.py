import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaudit.core.measures import Estimate, Rate
from fedaudit.core.trial import Trial
from fedaudit.reports.comparison import Row, Severity, Verdict, VerdictKind
from fedaudit.reports.headline import headline
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.verdicts import (
    NOT_TESTED,
    ORDER,
    judge,
    points,
    rate_text,
    severity_of,
)
from fedaudit.stats.intervals import clopper_pearson, paired_rate_difference, targets_needed

sys.path.insert(0, str(Path(__file__).parent))
from made_up import GAN, IG, SETTINGS, claim, line, measured, study, table

FORBIDDEN = re.compile(
    r"\b(safe|anonymous|anonymi[sz]ed|compliant|compliance|no risk|secure)\b", re.I
)


def _rate(hits: int, n: int) -> Rate:
    return Rate(hits, n, hits / n, *clopper_pearson(hits, n))


def _judge(
    hits: int, n: int, *, prior: int | None = 0, passive: bool = True, valid: bool = True
) -> Verdict:
    excess: Estimate | None = None
    rate = _rate(hits, n)
    if prior is not None:
        ours, theirs = ([k < count for k in range(n)] for count in (hits, prior))
        excess = paired_rate_difference(ours, theirs, range(n))
    measurement = Measurement(n, n, "photos", (), {}, 1.0, reid=rate, excess=excess)
    return judge(measurement, SETTINGS, passive=passive, valid=valid)


def test_the_five_kinds() -> None:
    kinds = {
        "LEAK DEMONSTRATED": _judge(8, 8),
        "NO LEAK FOUND ABOVE LIMIT": _judge(0, 100),
        "INCONCLUSIVE": _judge(0, 8),
        "INVALID": _judge(8, 8, valid=False),
        "NOT TESTED": judge(None, SETTINGS, passive=True, valid=True),
    }
    assert {wanted: found.kind for wanted, found in kinds.items()} == {k: k for k in kinds}
    assert {*kinds, "COMPARISON", "TRACE OF IDENTITY"} == set(get_args(VerdictKind))
    for verdict in kinds.values():
        leaks = verdict.kind == "LEAK DEMONSTRATED"
        assert (verdict.severity != "none") is leaks


def test_a_high_rate_alone_is_no_leak() -> None:
    """What the prior alone reaches does not count against the update."""
    found = _judge(8, 8, prior=8)
    assert found.kind == "INCONCLUSIVE"
    assert found.severity == "none"


def test_without_the_control_nothing_is_concluded() -> None:
    for hits, n in ((8, 8), (0, 200)):
        found = _judge(hits, n, prior=None)
        assert found.kind == "INCONCLUSIVE"
        assert "prior-only control is missing" in found.sentence


def test_the_limit_is_on_the_upper_bound() -> None:
    needed = targets_needed(SETTINGS.reid_limit)
    assert needed == 72
    assert _judge(0, needed).kind == "NO LEAK FOUND ABOVE LIMIT"
    below = _judge(0, needed - 1)
    assert (below.kind, below.targets_needed) == ("INCONCLUSIVE", needed)
    assert f"{needed} people without one would settle it" in below.sentence


def test_untested_is_never_zero() -> None:
    assert NOT_TESTED.kind == "NOT TESTED"
    assert not re.search(r"\d", NOT_TESTED.sentence)
    assert judge(None, SETTINGS, passive=True, valid=False) == NOT_TESTED


@pytest.mark.parametrize(
    ("low", "active", "passive"),
    [
        (0.0, "none", "none"),
        (1e-6, "low", "medium"),
        (0.0099, "low", "medium"),
        (0.01, "medium", "high"),
        (0.0999, "medium", "high"),
        (0.1, "high", "critical"),
        (0.4999, "high", "critical"),
        (0.5, "critical", "critical"),
        (1.0, "critical", "critical"),
    ],
)
def test_severity_by_the_lower_bound(low: float, active: Severity, passive: Severity) -> None:
    rate = Rate(1, 2, 0.5, low, 1.0)
    assert severity_of(rate, passive=False) == active
    assert severity_of(rate, passive=True) == passive


@given(st.integers(1, 200), st.data())
def test_every_verdict_tells_its_number(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    prior = data.draw(st.none() | st.integers(0, n))
    passive, valid = data.draw(st.booleans()), data.draw(st.booleans())
    found = _judge(hits, n, prior=prior, passive=passive, valid=valid)
    assert rate_text(_rate(hits, n)) in found.sentence
    assert not FORBIDDEN.search(found.sentence)
    assert found.severity in ORDER
    assert (found.targets_needed is not None) == (
        found.kind == "INCONCLUSIVE" and prior is not None
    )
    if not valid:
        assert found.kind == "INVALID"


def test_a_leak_tells_its_excess() -> None:
    found = _judge(20, 20, prior=2)
    assert found.sentence.startswith("20 of 20 people (95 % interval 83 % to 100 %) re-identified")
    assert "+90 points above the prior-only control (+" in found.sentence


def test_rates_and_points_as_text() -> None:
    assert rate_text(_rate(0, 30)) == "0 of 30 people (95 % interval 0 % to 12 %)"
    assert (
        rate_text(Rate(95, 100, 0.95, 0.95, 1.0))
        == "95 of 100 people (95 % interval 95 % to 100 %)"
    )
    assert (points(0.125), points(-0.5), points(0)) == ("+13 points", "−50 points", "0 points")


def _clean(deployed: int = 0, control: int = 100, **more: object) -> tuple[Row, ...]:
    """A hundred people: what comes back under dpsgd, and without a defense."""
    asked = study(defenses=("none", "dpsgd"), targets=100, deployed=("dpsgd",))
    weak = line(deployed, 100, defense="dpsgd", **more)  # type: ignore[arg-type]
    return table(asked, line(control, 100), weak)


def _headline(rows: Sequence[Row], deployed: Sequence[str] = ("none",)) -> Verdict:
    return headline(rows, SETTINGS, deployed)[0]


def test_the_headline_is_the_worst_deployed_line() -> None:
    asked = study(defenses=("none", "dplc"), attacks=(IG, GAN), targets=10, deployed=("none",))
    found = table(
        asked,
        line(7, 10),
        line(10, 10, attack=GAN),
        line(0, 10, defense="dplc"),
        line(3, 10, attack=GAN, defense="dplc"),
    )
    told, place = headline(found, SETTINGS, asked.audited)
    assert told.kind == "LEAK DEMONSTRATED"
    assert told.severity == "critical"
    assert rate_text(_rate(10, 10)) in told.sentence
    assert told.sentence.startswith("Without a defense, a curious server re-identified 10 of 10")
    assert "less than 0.001" in told.sentence
    assert not FORBIDDEN.search(told.sentence)
    assert place is not None
    assert (found[place].defense, found[place].attack) == ("none", GAN)


def test_the_control_and_alternatives_are_not_judged() -> None:
    """`none` and an alternative leak; the headline is of what is deployed."""
    asked = study(defenses=("none", "dpsgd", "dplc"), targets=100, deployed=("dpsgd",))
    found = table(
        asked,
        line(100, 100),
        line(0, 100, defense="dpsgd"),
        line(90, 100, defense="dplc"),
    )
    assert [row.role for row in found] == ["control", "deployed", "alternative"]
    told, place = headline(found, SETTINGS, asked.audited)
    assert (told.kind, told.severity, place) == ("NO LEAK FOUND ABOVE LIMIT", "none", 1)
    leaky = replace(asked, deployed=("dpsgd", "dplc"))
    again = table(leaky, line(100, 100), line(90, 100, defense="dplc"))
    leak = headline(again, SETTINGS, leaky.audited)[0]
    assert leak.kind == "LEAK DEMONSTRATED"
    assert leak.sentence.startswith("Your deployed defense, DPLC, let a curious server re-identify")
    assert "The same attack re-identified 100 of 100 people without it." in leak.sentence


def test_a_study_that_names_nothing_is_a_comparison() -> None:
    asked = study(defenses=("none", "dpsgd", "dplc"), targets=10)
    assert asked.audited == ()
    found = table(
        asked,
        line(9, 10),
        line(0, 10, defense="dpsgd"),
        line(4, 10, defense="dplc"),
    )
    told, place = headline(found, SETTINGS, asked.audited)
    assert (told.kind, told.severity, place) == ("COMPARISON", "none", None)
    assert (
        "no defense 9 of 10 people (the control); DP-SGD 0 of 10 people; DPLC 4 of 10 people"
        in told.sentence
    )
    assert "names none as deployed" in told.sentence
    many = tuple(f"dpsgd-{k}" for k in range(9))
    asked = study(defenses=("none", *many), targets=10)
    lines = [line(k, 10, defense=f"dpsgd-{k}") for k in range(9)]
    told, _ = headline(table(asked, line(9, 10), *lines), SETTINGS, ())
    assert "from dpsgd-0 0 of 10 people to dpsgd-8 8 of 10 people" in told.sentence


def test_a_study_with_one_defense_audits_it() -> None:
    assert study(defenses=("dpsgd",), names=("a", "b")).audited == ("dpsgd",)
    assert study().audited == ("none",)


def test_the_headline_of_a_clean_study() -> None:
    told = _headline(_clean(), ("dpsgd",))
    assert told.kind == "NO LEAK FOUND ABOVE LIMIT"
    assert told.sentence == (
        "Your deployed defense, DP-SGD, let nobody be re-identified: 0 of 100 people (95 % "
        "interval 0 % to 3.6 %); no leak found above 5 %. The same attack re-identified 100 of "
        "100 people without it."
    )
    assert not FORBIDDEN.search(told.sentence)


def test_one_inconclusive_line_leaves_the_study_open() -> None:
    few = replace(table(study(), line(0, 8))[0], defense="dplc")
    told = _headline((*_clean(), few), ("dpsgd", "dplc"))
    assert (told.kind, told.targets_needed) == ("INCONCLUSIVE", 72)


def test_headlines_of_nothing_and_of_failed_controls() -> None:
    nothing = "Re-identification was not tested: no attack finished."
    assert _headline(()) == replace(NOT_TESTED, sentence=nothing)
    (row,) = table(study(), line(8))
    invalid = replace(row, verdict=_judge(8, 8, valid=False))
    assert _headline((row, invalid)).kind == "INVALID"
    assert (
        _headline(
            (replace(row, measurement=replace(measured(row), reid=None), verdict=NOT_TESTED),)
        )
        == NOT_TESTED
    )


def test_what_the_originals_reach_stands_beside_the_rate() -> None:
    """Half of eight is not the same where the judge knows four of the originals, and all eight."""

    def known(made: list[Trial], photos: int) -> list[Trial]:
        return [
            replace(t, images=(replace(t.images[0], original=t.cell.target < photos),))
            for t in made
            if t.cell.role == "audit"
        ] + [t for t in made if t.cell.role != "audit"]

    for photos in (4, 8):
        found = table(study(deployed=("none",)), known(line(4), photos))
        for told in (found[0].verdict, _headline(found)):
            assert told.kind == "LEAK DEMONSTRATED"
            assert f"the original photos {photos} of 8 are recognized" in told.sentence
    (untried,) = table(study(), [*known(line(4), 8)[1:], *line(4)[:1]])
    assert measured(untried).originals is None
    quiet = table(study(targets=100), known(line(0, 100), 98))[0].verdict.sentence
    assert (
        "98 of 100 are recognized; no leak found" in quiet
        or "98 of 100 are recognized. This is no" in quiet
    )


def test_a_privacy_claim_that_does_not_hold_stands_in_the_headline() -> None:
    """Whatever the word is: the reader quotes ε beside it."""
    for gap, covers, words in (
        ("soteria", (), "The privacy claim of DP-SGD is broken: soteria."),
        ("buffers", ("update",), "The privacy claim of DP-SGD does not cover all that was sent"),
    ):
        told = _headline(_clean(claims=(claim(8.0, gap, covers=covers),)), ("dpsgd",))
        assert told.kind == "NO LEAK FOUND ABOVE LIMIT"
        assert words in told.sentence
    assert "privacy claim" not in _headline(_clean(claims=(claim(8.0, "counts"),))).sentence
