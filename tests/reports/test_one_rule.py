"""What a page says of its verdicts is one rule, wherever it is said; and what is open is told."""

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.core.measures import ALONE, Estimate, Rate
from fedaudit.reports import cells, columns, text
from fedaudit.reports.annex import annex
from fedaudit.reports.comparison import Reason, Row, VerdictKind
from fedaudit.reports.contrast_figure import contrasts
from fedaudit.reports.controls import controls
from fedaudit.reports.findings import NO_CONTROL, findings
from fedaudit.reports.glossary import GLOSSARY
from fedaudit.reports.headline import headline
from fedaudit.reports.html import render
from fedaudit.reports.identity_score_figure import scores
from fedaudit.reports.junit import junit
from fedaudit.reports.lanes import bounds
from fedaudit.reports.league import league
from fedaudit.reports.limitations import UNRUN
from fedaudit.reports.pull_request import pull_request
from fedaudit.reports.reidentification_figure import reidentification
from fedaudit.reports.results import Control
from fedaudit.reports.view import next_steps, not_shown

sys.path.insert(0, str(Path(__file__).parent))
from made_up import IG, SETTINGS, gallery, line, noise, study, table, trials
from sample import sample


def test_no_legend_takes_excess_for_what_demonstrates_a_leak() -> None:
    """One of 16 may be a leak whose interval reaches below its control's: the test decides."""
    (excess,) = (term.meaning for term in GLOSSARY if term.name == "Excess")
    caption = reidentification(sample()).reading
    (p,) = (c.scale for c in columns.of_rows(()) if c.title == "Holm p")
    assert all("test on identity" in text for text in (excess, caption, p))
    assert "is leakage" not in caption


def test_the_headline_says_of_what_its_p_value_is() -> None:
    """Of how well faces fit people, not of how many came back: one of eight may fit well."""
    (row,) = table(study(deployed=("none",)), line(8))
    told, _ = headline((row,), SETTINGS, ("none",))
    assert "what came back would fit these people as well with a probability of" in told.sentence
    assert "as many come back" not in told.sentence


def _compared(*hits: int, names: Sequence[str] = ("fresh",)) -> tuple[Row, ...]:
    """A comparison of an undefended client with so many defenses, under each so many of ten."""
    labels = ("none", "dpsgd", "dplc", "top_k", "sign", "qsgd", "censor")[: len(hits)]
    asked = study(defenses=labels, targets=10, names=names)
    made = [
        line(n, 10, defense=d, scenario=s) for s in names for d, n in zip(labels, hits, strict=True)
    ]
    return table(asked, *made)


def test_a_comparison_singles_no_defense_out_and_names_its_other_scenarios() -> None:
    told, _ = headline(_compared(10, 0, 0, 10, 10, 10, 3), SETTINGS, ())
    assert "from DP-SGD 0 of 10 people (as under 1 more) to" in told.sentence
    assert "10 of 10 people (as under 2 more)." in told.sentence
    assert "Further scenarios" not in told.sentence
    several, _ = headline(_compared(10, 0, names=("fresh", "late", "later")), SETTINGS, ())
    assert "Further scenarios stand in the table: late, later." in several.sentence


def test_findings_of_a_comparison_have_one_remedy() -> None:
    """Nothing is deployed that would be replaced: the best of all is the same for each."""
    found = findings(_compared(10, 9, 10, 8))
    (remedy,) = {finding.remedy for finding in found}
    assert "least came back under top-k" in remedy
    assert "went from" not in remedy


def test_no_defense_at_all_is_nobodys_remedy() -> None:
    asked = study(defenses=("none", "dplc"), targets=10, deployed=("dplc",))
    (found,) = findings(table(asked, line(9, 10), line(10, 10, defense="dplc")))
    assert "no defense:" not in found.remedy
    assert found.remedy.startswith("No other defense was run")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("no prior-only control", "with no prior-only control"),
        ("prior overlap", "whose prior knows the audited photos"),
        ("source not shown", "not shown to come from the update"),
        ("too few units", "not significantly above prior-only"),
    ],
)
def test_matches_that_prove_nothing_say_why(reason: Reason, words: str) -> None:
    (row,) = table(study(deployed=("none",)), line(1))
    (found,) = findings((replace(row, verdict=replace(row.verdict, reason=reason)),))
    assert words in found.title
    assert words in found.cause
    assert ("prior-only" in found.title) == ("prior-only" in words)


def test_what_was_not_run_is_told_where_the_verdict_is() -> None:
    lines = (f"5 job(s) {UNRUN}: their cells are not tested.", "Something else.")
    results = replace(sample(), limitations=lines)
    assert lines[0] in not_shown(results, None)
    assert lines[1] not in not_shown(results, None)
    assert lines[0].partition(":")[0] in pull_request(results)


@pytest.mark.parametrize("kind", ["INCONCLUSIVE", "INVALID", "LEAK DEMONSTRATED"])
def test_a_clause_stands_beside_an_interval_and_the_verdict(kind: VerdictKind) -> None:
    """ "0 of 8 re-identified" beside a clause of a law would look like one that is met."""
    results = sample()
    told = replace(results, headline=replace(results.headline, kind=kind))
    laws = [row.tested for row in annex(told) if "GDPR" in row.standard and "9(1)" in row.clause]
    assert len(laws) == 1
    assert "95 % interval" in laws[0]
    assert f"verdict of the study: {kind}" in laws[0]


def test_the_control_answers_no_clause_of_a_comparison() -> None:
    rows = _compared(10, 0, 3)
    results = replace(sample(), rows=rows, headline_row=None, deployed=())
    (told,) = (row.tested for row in annex(results) if "9(1)" in row.clause)
    assert told.startswith("at worst, under DPLC, 3 of 10 people (95 % interval")


def _controls(targets: int, **more: float) -> dict[str, Control]:
    asked, made = study(targets=targets), trials(line(targets, targets, prior=targets), noise(0))
    known = gallery(**more)
    found = controls(asked, made, table(asked, made.all), known)
    return {control.name.partition(" ")[0]: control for control in found}


def test_a_control_that_could_not_fail_did_not_hold() -> None:
    """One of one has a lower end of 2.5 %, which is no more than the limit of 5 %."""
    one, two = _controls(1)["prior-only"], _controls(2)["prior-only"]
    assert (one.passed, two.passed) == (None, False)
    assert one.outcome.endswith("so few decide nothing")


def test_a_calibration_is_held_against_the_rate_that_is_in_use() -> None:
    found = _controls(8, fmr=1e-2)["FMR"]
    assert found.requirement.startswith("at least 300 impostor pairs for an FMR of 0.01;")
    assert "asks for 0.001, which takes 3,000" in found.requirement


def test_of_equal_rates_the_graver_verdict_stands_first() -> None:
    results = sample()
    first = replace(results.defenses[0], measurement=None)
    lines = [replace(first, verdict=kind) for kind in ("INCONCLUSIVE", "TRACE OF IDENTITY")]
    order = [x.source.verdict for x in league(replace(results, defenses=tuple(lines))).lines]
    assert order == ["TRACE OF IDENTITY", "INCONCLUSIVE"]


def test_a_plain_table_has_verdicts_and_no_bound_that_is_rounded_away() -> None:
    line_ = sample().defenses[0]
    assert line_.measurement is not None
    rare = replace(line_.measurement, reid=Rate(1, 16, 0.0625, 0.0016, 0.302))
    results = replace(sample(), defenses=(replace(line_, measurement=rare),))
    heads, (cells,) = columns.plain(results)
    found = dict(zip(heads, cells, strict=True))
    assert found["verdict"] == line_.verdict
    assert found["re-id"] == "1/16 (0.2–30 %)"


def test_markdown_is_escaped_once() -> None:
    results = sample()
    told = replace(results, headline=replace(results.headline, sentence="raise reid_limit & <b>"))
    assert "raise reid&#95;limit &amp; &lt;b&gt;" in pull_request(told)


def test_one_value_has_no_interval_however_it_is_bounded() -> None:
    """LPIPS has no upper end: of one photo it would stand as [0.00, 0.01]."""
    m = table(study(targets=1), line(1, 1))[0].measurement
    assert m is not None
    lpips = m.metrics["lpips"]
    assert text.estimate(lpips) == "0.50 no interval n = 1"
    assert cells.estimate(lpips, 2).notes == ("no interval", "n = 1")


def test_the_page_says_which_attack_a_label_stands_for() -> None:
    results = sample()
    rows = tuple(replace(r, attack_settings="gan_inversion(adapt='no')") for r in results.rows)
    page = render(replace(results, rows=rows), None, "none")
    assert "<code>gan_inversion(adapt=&#39;no&#39;)</code>" in page
    assert "Attacks that were run" not in render(results, None, "none")


def test_things_that_nobody_attacked_are_no_attacks() -> None:
    e = next(e for e in sample().exposures if e.reid)
    untouched = replace(e, attack=None, measurement=None, verdict="NOT TESTED")
    many = (*(replace(e, defense=f"d{k}") for k in range(9)), untouched)
    page = render(replace(sample(), exposures=many), None, "none")
    assert "The map: 9 attacks on what was sent under 10 defenses; 1 not tested" in page


def test_the_control_of_a_comparison_is_no_test_that_could_fail() -> None:
    """It must leak; beside what is deployed neither control nor alternatives are tests."""
    results = replace(sample(), rows=_compared(10, 3), deployed=(), findings=())
    cases = [case.get("name") for case in ET.fromstring(junit(results)).iter("testcase")]
    assert cases == [f"dpsgd: {IG}"]


def test_the_page_states_all_that_its_words_rest_on() -> None:
    (leak, clean, invalid) = (
        re.findall(rf"<dt>{name}.*?</dt><dd>(.*?)</dd>", render(sample(), None, "none"))[0]
        for name in ("LEAK DEMONSTRATED", "NO LEAK FOUND", "INVALID")
    )
    assert "and somebody was re-identified; or a photo came back as a copy" in leak
    assert "its search had ended; and no cell of either is missing" in clean
    assert "the judge does not know the originals" in invalid


def test_figures_draw_no_interval_of_one_value_and_say_what_they_pool() -> None:
    alone = Estimate(0.95, -1.0, 1.0, 1, ALONE)
    assert bounds(alone) == {"value": 0.95, "low": 0.95, "high": 0.95}
    assert bounds(replace(alone, method="")) == {"value": 0.95, "low": -1.0, "high": 1.0}
    results = sample()
    assert "nor does one target, which has no interval" in contrasts(results).reading
    assert "of any attack" in scores(results).reading
    assert "owe nothing" not in scores(results).reading


def test_one_thing_to_do_is_said_once() -> None:
    (row,) = table(study(deployed=("none",)), line(1, prior=None))
    assert row.verdict.reason == "no prior-only control"
    steps = next_steps(
        replace(sample(), rows=(row,), headline=row.verdict, findings=findings((row,)), controls=())
    )
    assert [step for step in steps if "controls = true" in step] == [f"{NO_CONTROL} (F01)"]


def test_what_is_not_one_is_nowhere_shown_as_one() -> None:
    results = sample()
    line_ = results.defenses[0]
    assert line_.measurement is not None
    near = {**line_.measurement.metrics, "ssim": Estimate(0.996, 0.9951, 0.9998, 8, "")}
    best = replace(line_, worst_cosine=0.9978, measurement=replace(line_.measurement, metrics=near))
    changed = replace(results, defenses=(best,))
    heads, (shown,) = columns.plain(changed)
    found = dict(zip(heads, shown, strict=True))
    assert found["SSIM"].startswith("0.996")
    assert found["worst cosine"] == "0.998"
    assert cells.estimate(near["ssim"], 2).notes[0] == "[0.995, >0.999]"
    findings_ = [replace(one, evidence=text.estimate(near["ssim"])) for one in results.findings]
    page = render(replace(changed, findings=tuple(findings_)), None, "none")
    assert "0.996 [0.995, &gt;0.999] n = 8" in page


def test_a_ratio_is_rounded_as_any_number() -> None:
    used = sample().defenses[0].utility
    assert used is not None
    costs = replace(used, step_seconds=0.996, plain_step_seconds=1.0)
    lines = (replace(sample().defenses[0], utility=costs),)
    shown = columns.plain(replace(sample(), defenses=lines))[1][0]
    assert "1.00 ×" in shown
