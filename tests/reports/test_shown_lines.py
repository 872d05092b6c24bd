import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.core.claims import Claim
from fedaudit.core.measures import Estimate
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.reports.columns import plain
from fedaudit.reports.html import render
from fedaudit.reports.serialization import canonical_bytes, read_results
from fedaudit.reports.shown_lines import privacy_findings, privacy_lines
from fedaudit.study.canary_result import CanaryAudit, Cause, ShownLine
from fedaudit.study.shown_epsilon import ShownEpsilon

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample

SCENE = "fresh-b1"
STUDY = Study("s", (Scenario(SCENE, defenses=(Choice("none"), Choice("dplc"))),))


def line(defense: str, claimed: float | None, shown: float, *causes: Cause) -> ShownLine:
    claim = None
    if claimed is not None:
        claim = Claim(
            epsilon=claimed,
            delta=1e-5,
            unit="image",
            neighbors="add or remove one",
            covers=("update",),
            mechanism="DP-SGD",
            accountant="rdp",
            rounds=5,
        )
    bounds = ShownEpsilon(shown, shown, shown, 1000, 50, 50, 700, 1e-5)
    audit = CanaryAudit(SCENE, defense, claim, bounds, "1,000 canaries can show …", causes)
    return ShownLine(SCENE, defense, audit)


KEPT = line("dplc", 8.0, 2.77)
BROKEN = line("dplc", 1.0, 2.77, Cause("no noise", True, "moved by ±0"))
NONE = line("none", None, 4.0)
REFUSED = ShownLine(SCENE, "dplc", reason="canaries are planted in fedavg")


def test_what_is_shown_below_the_claim_is_no_finding_and_bounds_the_truth() -> None:
    assert not list(privacy_findings(STUDY, (KEPT, NONE, REFUSED)))
    kept, none, refused = privacy_lines(replace(sample(), shown_epsilon=(KEPT, NONE, REFUSED)))
    assert kept.between == "at least 2.77; at most 8, if the implementation is right"
    assert (none.claimed, none.verdict) == ("none", "no claim to hold it against")
    assert refused.verdict.startswith("not tested: canaries are planted")
    assert refused.shown == "—"


def test_the_unit_of_canaries_and_their_estimate_are_said() -> None:
    assert KEPT.audit is not None
    guess = Estimate(7.6, 7.1, 8.2, 300, "bootstrap over canaries")
    audit = replace(KEPT.audit, unit="client", photos=0, estimate=guess)
    results = replace(sample(), shown_epsilon=(replace(KEPT, audit=audit),))
    (told,) = privacy_lines(results)
    assert "; for one client. Estimated from" in told.shown
    assert told.shown.endswith("about 7.60 (7.10 to 8.20), no bound")
    assert read_results(canonical_bytes(results)) == results


def test_more_shown_than_claimed_is_critical_and_names_the_fault() -> None:
    (finding,) = privacy_findings(STUDY, (BROKEN,))
    assert finding.severity == "critical"
    assert finding.title.endswith("more shown than claimed, whatever the mechanism: no noise")
    assert "moved by ±0" in finding.evidence
    deployed_elsewhere = replace(STUDY, deployed=("none",))
    assert list(privacy_findings(deployed_elsewhere, (BROKEN,)))  # an alternative, and broken


@pytest.mark.slow
def test_column_block_and_curve() -> None:
    results = replace(sample(), shown_epsilon=(KEPT, NONE))
    heads, rows = plain(results)
    cells = {row[1]: row[heads.index("ε shown")] for row in rows if row[0] == SCENE}
    assert (cells["dplc"], cells["none"], cells["private_projector"]) == ("≥ 2.77", "≥ 4.00", "—")
    page = render(results, None, "redacted")
    assert 'id="privacy"' in page
    assert "ε shown over ε claimed" in page
    assert 'id="privacy"' not in render(sample(), None, "redacted")


@pytest.mark.parametrize("claimed", [8.0, float("inf")])
def test_results_can_be_read_again(claimed: float) -> None:
    results = replace(sample(), shown_epsilon=(line("dplc", claimed, 2.0), REFUSED))
    assert read_results(canonical_bytes(results)) == results
