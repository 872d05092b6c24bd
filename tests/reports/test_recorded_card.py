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
