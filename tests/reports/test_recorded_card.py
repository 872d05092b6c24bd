"""Recorded updates: what explains them, against which controls, and which fact would say more."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_up import study
from sample import sample
from sample_rows import around

from fedaudit.core.recorded_run import Protection
from fedaudit.reports import recorded_card as card
from fedaudit.reports.comparison import Verdict
from fedaudit.reports.html import render
from fedaudit.reports.measurement import Explained
from fedaudit.reports.recorded import findings_of
from fedaudit.reports.results import Results

BEYOND = Explained(around(0.97, 0.01, 4), around(0.4, 0.02, 4), around(0.1, 0.02, 4), None)
LIKE = replace(BEYOND, other=around(0.9, 0.08, 4))


def recorded_run(explained: Explained, **facts: Any) -> Results:
    """The sample's first row as one of a recorded run, of which nothing but `facts` is known."""
    row = sample().rows[0]
    assert row.measurement
    nothing: dict[str, Any] = {
        "reid": None,
        "prior": None,
        "excess": None,
        "metrics": {},
        "worst": None,
    }
    measurement = replace(row.measurement, explained=explained, **{**nothing, **facts})
    verdict = Verdict("NOT TESTED", "Whose faces these are cannot be said.")
    seen = replace(row, measurement=measurement, verdict=verdict, model_state="the recorded model")
    return replace(sample(), rows=(seen,), headline=verdict, headline_row=0)


@pytest.mark.slow
def test_a_simulated_run_has_no_card() -> None:
    assert card.recorded_card(sample()) is None
    assert 'id="recorded"' not in render(sample(), None, "none")


def test_the_card_shows_the_share_beside_every_control_that_ran() -> None:
    page = render(recorded_run(BEYOND), None, "none")
    section = re.search(r'<section id="recorded".*?</section>', page, re.DOTALL)
    assert section is not None
    text = re.sub(r"<[^>]*>", " ", section[0])
    for words in ("0.97", "another client’s update 0.40", "invented people’s images 0.10"):
        assert words in text
    assert "random images" not in text
    assert "yes, a finding" in text


_REID = sample().rows[0].reid
_SSIM = {"ssim": around(0.4, 0.1, 4)}


@pytest.mark.parametrize(
    ("explained", "facts", "wanted"),
    [
        (LIKE, {}, card.TRAINING),
        (BEYOND, {}, card.TRUTH),
        (BEYOND, {"reid": _REID, "searched": True}, card.TRUTH),
        (BEYOND, {"metrics": _SSIM}, card.GALLERY),
        (BEYOND, {"metrics": _SSIM, "reid": _REID}, card.NOTHING),
    ],
)
def test_the_fact_that_would_say_more_is_the_next_one_missing(
    explained: Explained, facts: dict[str, Any], wanted: str
) -> None:
    found = card.recorded_card(recorded_run(explained, **facts))
    assert found is not None
    assert found.wanted == wanted


def test_a_share_above_all_controls_is_a_finding_unless_something_graver_is() -> None:
    (found,) = findings_of(study(), (), recorded_run(BEYOND).rows)
    assert found.severity == "medium"
    assert "0.97 (0.96 to 0.98)" in found.evidence
    assert "another client's update 0.40" in found.evidence
    assert list(findings_of(study(), (), recorded_run(LIKE).rows)) == []
    (row,) = recorded_run(BEYOND).rows
    leak = replace(row, verdict=Verdict("LEAK DEMONSTRATED", "", "high"))
    assert list(findings_of(study(), (), (leak,))) == []


def test_buffers_in_clear_are_an_exposure_and_not_a_protection() -> None:
    seen = Protection("buffers in clear", False, "sent as they are", 1, 1)
    (found,) = findings_of(study(), (seen,))
    words = f"{found.title} {found.claim} {found.cause} {found.remedy}"
    assert found.title == "Running statistics are sent in the clear"
    assert found.severity == "low"
    assert "in use" not in words
    assert "attacks took" not in words
    assert "group norm" in found.remedy
    assert found.standards == ()
    (fault,) = findings_of(study(), (replace(seen, fault=True),))
    assert "outside the protection" in fault.title


def test_attacks_took_a_protection_into_account_only_where_one_finished() -> None:
    seen = Protection("clipping", False, "one norm", 1, 4, 1.0)
    (row,) = recorded_run(LIKE).rows
    (tried,) = findings_of(study(), (seen,), (row,))
    (untried,) = findings_of(study(), (seen,), (replace(row, measurement=None),))
    assert "attacks took" in tried.remedy
    assert untried.remedy == "No attack finished: what it keeps from one was not tried."
