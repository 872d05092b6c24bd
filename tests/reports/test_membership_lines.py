import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.core.inference import Level, Membership, MembershipScore, PropertyScore, Recall
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.reports.columns import plain
from fedaudit.reports.html import render
from fedaudit.reports.membership_lines import (
    is_demonstrated,
    membership_controls,
    membership_coverage,
    membership_findings,
    property_coverage,
    recall,
    strongest_score,
    unlabeled_properties,
)
from fedaudit.stats.intervals import rate_of

sys.path.insert(0, str(Path(__file__).parent))
from sample import sample

STUDY = Study("s", (Scenario("fresh-b1", defenses=(Choice("none"), Choice("dpsgd"))),))


def one_score(attack: str, hits: int, p: float, level: Level = "person") -> MembershipScore:
    recalls = (Recall(0.001, None), Recall(0.005, rate_of(0, 20)), Recall(0.01, rate_of(hits, 20)))
    return MembershipScore(attack, level, 0.9, 0.6, p, recalls, ((0.0, 0.1), (1.0, 1.0)), p)


def line(defense: str, *scores: MembershipScore, control: float = 0.5) -> Membership:
    return Membership("fresh-b1", defense, 10, (5, 10), 20, 20, scores, control)


TOLD = line("none", one_score("loss", 2, 0.5), one_score("FedMIA", 9, 0.0005))
KEPT = line("dpsgd", one_score("loss", 0, 0.7), one_score("FedMIA", 1, 0.3))
UNTESTED = replace(line("sum"), reason="only a sum is seen", control=None)


def test_the_strongest_attack_stands_for_a_defense() -> None:
    best = strongest_score(TOLD, "person")
    assert best is not None
    assert (best.attack, recall(best)) == ("FedMIA", (0.01, rate_of(9, 20)))
    assert strongest_score(TOLD, "image") is None
    assert (is_demonstrated(TOLD), is_demonstrated(KEPT)) == (True, False)


def test_coverage_counts_federations_and_never_what_was_not_tested() -> None:
    assert membership_coverage(()).result == "—"
    assert not membership_coverage(()).in_scope
    both = membership_coverage((TOLD, KEPT, UNTESTED))
    assert (both.executed, both.result) == (True, "above chance in 1 of 2 federations")
    assert not membership_coverage((UNTESTED,)).executed


def test_findings_are_of_judged_defenses_and_name_what_was_measured_to_help() -> None:
    audited = replace(STUDY, deployed=("none",))
    (finding,) = membership_findings(audited, (TOLD, KEPT))
    assert finding.severity == "high"  # 9 of 20 is 23 % at least, at 1 % false positives
    assert "9 of 20 people by other photos of them recognized" in finding.claim
    assert "nothing above chance under" in finding.remedy
    assert "NISTAML.033" in finding.standards[0]
    assert not list(membership_findings(STUDY, (TOLD, KEPT)))  # the control is no finding
    (alone,) = membership_findings(audited, (TOLD,))
    assert "only noise bounds membership" in alone.remedy


def test_a_pipeline_that_tells_outsiders_apart_fails_its_control() -> None:
    held, failed = membership_controls((TOLD, replace(KEPT, control=0.004), UNTESTED))
    assert (held.passed, failed.passed) == (True, False)


def test_properties_are_a_class_of_their_own() -> None:
    light = PropertyScore("light", (0.2, 0.4), (0.1, 0.6), 0.97, 0.0002, 0.0004)
    pose = PropertyScore("pose", (0.2, 0.4), (0.6, 0.1), -1.0, 1.0, 1.0)
    both = replace(KEPT, properties=(light, pose))
    assert property_coverage((both, TOLD)).result == "1 of 2 told above chance"
    assert not property_coverage((TOLD,)).executed
    (finding,) = membership_findings(STUDY, (both,))
    assert "have more of: light" in finding.title
    assert "NISTAML.034" in finding.standards[0]
    assert "clients&#39; photos have in common" in render(
        replace(sample(), membership=(both,)), None, "redacted"
    ).replace("'", "&#39;")


def test_properties_that_nobody_labeled_are_named() -> None:
    light = PropertyScore("light", (0.2, 0.4), (0.1, 0.6), 0.97, 0.0002, 0.0004)
    worn = replace(light, property="glasses")
    smile = replace(light, property="expression: smile")
    assert unlabeled_properties((replace(KEPT, properties=(light,)),)) == (
        "glasses, beard, sex, expression"
    )
    both = replace(KEPT, properties=(worn, smile))
    assert unlabeled_properties((TOLD, both)) == "beard, sex"


@pytest.mark.slow
def test_column_and_figure() -> None:
    light = PropertyScore("light", (0.2, 0.4), (0.1, 0.6), 0.97, 0.0002, 0.0004)
    told = replace(TOLD, properties=(light, replace(light, property="pose", p_adjusted=0.3)))
    results = replace(sample(), membership=(told, KEPT, UNTESTED))
    heads, rows = plain(results)
    shares = {row[1]: row[heads.index("properties")] for row in rows if row[0] == "fresh-b1"}
    assert (shares["none"], shares["dplc"]) == ("1 of 2 above chance; light 0.97", "—")
    cells = {row[1]: row[heads.index("members")] for row in rows if row[0] == "fresh-b1"}
    assert cells["none"] == "9/20, AUC 0.90"
    assert cells["dplc"] == "—"
    page = render(results, None, "redacted")
    assert "Who is in a client’s data" in page or "Who is in a client&#39;s data" in page
    assert '>glasses, beard, sex, expression</th><td colspan="4">— not tested' in page
    assert "only a sum is seen" not in page  # there is a curve to show
    reason = render(replace(results, membership=(UNTESTED,)), None, "redacted")
    assert "only a sum is seen" in reason
