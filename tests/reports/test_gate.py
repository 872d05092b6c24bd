"""The gate, what is accepted, and what other tools are given."""

import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from sarif_pydantic import Sarif

from fedaudit.core.errors import ConfigError
from fedaudit.reports.accepted import Acceptance, read_accepted, write_accepted
from fedaudit.reports.comparison import VerdictKind
from fedaudit.reports.differences import compare_runs
from fedaudit.reports.gate import Gate, judge_run
from fedaudit.reports.junit import junit
from fedaudit.reports.league import csv_of, json_of
from fedaudit.reports.measurement import Effort
from fedaudit.reports.pull_request import pull_request
from fedaudit.reports.results import Results
from fedaudit.reports.sarif import sarif

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample

TODAY = date(2026, 11, 26)
CRITICAL, HIGH, LOW = (finding.fingerprint for finding in sample().findings)


def _gate(results: Results | None = None, **asked: object) -> Gate:
    return judge_run(results or sample(), today=TODAY, **asked)  # type: ignore[arg-type]


def _accepted(expires: date) -> dict[str, Acceptance]:
    return {CRITICAL: Acceptance(reason="invented people only", owner="A. Lee", expires=expires)}


def test_findings_as_grave_as_the_bar_fail() -> None:
    assert len(_gate(fail_on="critical").failures) == 1
    assert len(_gate(fail_on="high").failures) == 2
    found = _gate(fail_on="low")
    assert len(found.failures) == 3
    assert not found.passed
    assert CRITICAL in found.failures[0]


def test_an_accepted_finding_passes_until_its_last_day() -> None:
    held = _gate(fail_on="critical", accepted=_accepted(TODAY))
    assert (held.failures, [f.fingerprint for f in held.accepted]) == ((), [CRITICAL])
    ended = _gate(fail_on="critical", accepted=_accepted(date(2026, 11, 25)))
    assert "ended on 2026-11-25" in ended.failures[0]
    assert ended.expired == (CRITICAL,)
    strange = {"0" * 16: _accepted(TODAY)[CRITICAL]}
    assert _gate(fail_on="critical", accepted=strange).unused == ("0" * 16,)


def test_new_findings_are_those_that_the_baseline_lacks_or_has_less_grave() -> None:
    now, old = sample(), sample()
    assert not _gate(fail_on="new-high", baseline=old).failures
    without = replace(old, findings=old.findings[1:])
    assert len(_gate(fail_on="new-high", baseline=without).failures) == 1
    milder = replace(old, findings=(replace(old.findings[0], severity="medium"), *old.findings[1:]))
    assert CRITICAL in _gate(now, fail_on="new-high", baseline=milder).failures[0]
    with pytest.raises(ConfigError, match="--baseline"):
        _gate(fail_on="new-high")


def test_the_upper_end_of_the_rate_counts_and_unmeasured_fails() -> None:
    results = sample()
    deployed = [row for row in results.rows if row.role == "deployed" and row.reid]
    high = max(row.reid.high for row in deployed if row.reid)
    assert not _gate(max_reid=high).failures
    assert "may exceed" in _gate(max_reid=high - 0.01).failures[0]
    untested = replace(results, rows=tuple(replace(r, measurement=None) for r in results.rows))
    assert "not measured" in _gate(untested, max_reid=1.0).failures[0]


def test_an_open_verdict_is_no_pass() -> None:
    quiet = replace(sample(), findings=())
    assert _gate(quiet, fail_on="low").passed
    for kind in ("INCONCLUSIVE", "INVALID", "NOT TESTED"):
        headline = replace(quiet.headline, kind=kind, severity="none")
        assert not _gate(replace(quiet, headline=headline), fail_on="low").passed


def test_a_gate_without_a_bar_or_without_anything_deployed_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a bar"):
        _gate()
    with pytest.raises(ConfigError, match="compares defenses"):
        _gate(replace(sample(), deployed=()), fail_on="high")


def test_the_file_of_acceptances_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    assert read_accepted(file) == {}
    odd = Acceptance(reason='a "quoted"\nline, \x7f and 🙂', owner="Ø", expires=TODAY)
    write_accepted(file, {CRITICAL: odd})
    assert read_accepted(file) == {CRITICAL: odd}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[accepted.zz]\nreason='a'\nowner='b'\nexpires=2027-01-01", "zz"),
        (f"[accepted.{CRITICAL}]\nreason=''\nowner='b'\nexpires=2027-01-01", "reason"),
        (f"[accepted.{CRITICAL}]\nreason='a'\nexpires=2027-01-01", "owner"),
        (f"[accepted.{CRITICAL}]\nreason='a'\nowner='b'\nexpires='soon'", "expires"),
        ("[accepted", "no TOML"),
        ("\udcff", "UTF-8"),
    ],
)
def test_a_file_that_is_no_list_of_acceptances_is_refused(
    tmp_path: Path, text: str, what: str
) -> None:
    file = tmp_path / "accepted.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=what):
        read_accepted(file)


def test_one_finding_has_one_fingerprint_everywhere() -> None:
    results = sample()
    document = json.loads(sarif(results, "studies/faces.toml"))
    Sarif.model_validate(document)
    (run,) = document["runs"]
    assert document["version"] == "2.1.0"
    found = run["results"]
    prints = [one["partialFingerprints"]["fedaudit/v1"] for one in found]
    assert prints == [CRITICAL, HIGH, LOW]
    assert [one["level"] for one in found] == ["error", "error", "note"]
    rules = run["tool"]["driver"]["rules"]
    for one in found:
        assert rules[one["ruleIndex"]]["id"] == one["ruleId"]
        place = one["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "studies/faces.toml"
    assert rules[0]["properties"]["security-severity"] == "9.5"
    for text in (junit(results), pull_request(results)):
        assert all(fingerprint in text for fingerprint in (CRITICAL, HIGH, LOW))


@pytest.mark.parametrize("kind", ["INCONCLUSIVE", "INVALID", "NOT TESTED", "COMPARISON"])
def test_code_scanning_takes_no_open_verdict_for_a_clean_one(kind: VerdictKind) -> None:
    """An empty list would close whatever alerts an earlier run had opened."""
    results = replace(sample(), findings=())
    assert json.loads(sarif(results, "study.toml"))["runs"][0]["results"] == []
    told = replace(results, headline=replace(results.headline, kind=kind))
    (run,) = json.loads(sarif(told, "study.toml"))["runs"]
    (one,) = run["results"]
    assert one["message"]["text"] == f"{kind}: {told.headline.sentence}"
    assert run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
    assert one["level"] == "warning"


def test_open_verdicts_are_skipped_tests_and_leaks_are_failed_ones() -> None:
    results = sample()
    cases = list(ET.fromstring(junit(results)).iter("testcase"))  # our own text
    rows = [row for row in results.rows if row.role == "deployed"]
    assert len(cases) == len(rows) + len(results.findings)
    for case, row in zip(cases, rows, strict=False):
        outcome = {child.tag for child in case}
        leak = row.verdict.severity != "none"
        still = row.verdict.kind in {"INCONCLUSIVE", "INVALID", "NOT TESTED"}
        assert outcome == ({"skipped"} if still else {"failure"} if leak else set())


def test_hostile_names_are_text_in_every_format() -> None:
    bad = '</a><script>x</script>|`@here`\x1b[31m"'
    results = replace(sample(), study=bad)
    for text in (junit(results), pull_request(results)):
        assert "<script" not in text
        assert "\x1b" not in text
    formula = replace(results.defenses[0], defense="=HYPERLINK(1)")
    lines = csv_of(replace(results, defenses=(formula,)))
    assert "'=HYPERLINK(1)" in lines
    assert json.loads(json_of(results))[0]["scenario"] == results.defenses[0].scenario


def test_better_and_worse_are_said_of_like_with_like_only() -> None:
    results = sample()
    same = compare_runs(results, results)
    assert {c.word for c in same.rows if c.p_value is not None} == {"no difference shown"}
    assert (same.new, same.gone, same.changed) == ((), (), ())
    row = next(row for row in results.rows if row.reid and row.reid.hits == 0)
    assert row.reid
    assert row.measurement
    leaky = replace(row.reid, hits=row.reid.n, value=1.0, low=0.8, high=1.0)
    worse = replace(row, measurement=replace(row.measurement, reid=leaky))
    rows = tuple(worse if other is row else other for other in results.rows)
    changes = compare_runs(results, replace(results, rows=rows)).rows
    assert [c.word for c in changes if c.after is worse] == ["worse"]
    back = compare_runs(replace(results, rows=rows), results).rows
    assert [c.word for c in back if c.before is worse] == ["better"]
    assert worse.measurement
    effort = Effort(
        steps=100, restarts=1, evaluations=1, closed_form=False, tested=0, converged=0, gain=None
    )
    for stronger, reason in (
        (replace(worse, threat_model="A"), f"threat model: {row.threat_model} → A"),
        (replace(worse, attack_settings="gifd(steps=9)"), "attack settings: "),
        (replace(worse, measurement=replace(worse.measurement, effort=effort)), "attack's steps: "),
    ):
        rows = tuple(stronger if other is row else other for other in results.rows)
        (change,) = (
            c
            for c in compare_runs(results, replace(results, rows=rows)).rows
            if c.after is stronger
        )
        assert change.word == "not comparable"
        assert len(change.why) == 1
        assert change.why[0].startswith(reason)
    stricter = tuple(replace(one, threshold=one.threshold + 0.1) for one in results.ceilings)
    others = compare_runs(results, replace(results, ceilings=stricter))
    assert {c.word for c in others.rows} == {"not comparable"}
    assert others.unlike[0].startswith("judge: ")


def test_runs_on_other_data_are_not_compared() -> None:
    results = sample()
    other = replace(results, provenance=replace(results.provenance, data="lfw"))
    found = compare_runs(results, other)
    assert {c.word for c in found.rows} == {"not comparable"}
    hashes = dict(results.provenance.hashes) | {"faces": "0" * 64}
    changed = replace(results, provenance=replace(results.provenance, hashes=hashes))
    photos = compare_runs(results, changed)
    assert {c.word for c in photos.rows} == {"not comparable"}
    assert "photos, by their hash" in photos.unlike[0]
    fewer = replace(results, findings=results.findings[1:], rows=results.rows[1:])
    assert [f.fingerprint for f in compare_runs(fewer, results).new] == [CRITICAL]
    assert [f.fingerprint for f in compare_runs(results, fewer).gone] == [CRITICAL]
    assert [c.word for c in compare_runs(fewer, results).rows if c.before is None] == ["new"]
