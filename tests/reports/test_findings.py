import sys
from dataclasses import replace
from pathlib import Path

from fedaudit.core.protocols import AttackCategory
from fedaudit.reports.comparison import Row
from fedaudit.reports.coverage import INFERENCE, coverage
from fedaudit.reports.findings import findings
from fedaudit.reports.remedies import NO_REMEDY
from fedaudit.reports.verdicts import rate_text
from fedaudit.study.manifest import categories_of

sys.path.insert(0, str(Path(__file__).parent))
from made_up import GAN, IG, claim, line, measured, study, table
from sample_rows import worth

PARTIAL = (claim(4.0, "update", covers=("cluster_centers",)),)
WHOLE = (claim(8.0, "counts"),)
BROKEN = (claim(0.1, "update", covers=()),)


def _rows(**hits: int) -> tuple[Row, ...]:
    """One row a defense, of 10 targets, all deployed."""
    asked = study(defenses=tuple(hits), targets=10, deployed=tuple(hits))
    lines = [line(n, 10, defense=d) for d, n in hits.items()]
    return table(asked, *lines)


def test_a_leak_is_a_finding() -> None:
    (found,) = findings(_rows(none=10))
    assert (found.id, found.severity, found.confidence) == ("F01", "critical", "high")
    assert "10 of 10 people (95 % interval" in found.claim
    assert "test on identity p" in found.evidence
    assert "SSIM" in found.evidence
    assert "without a defense" in found.title
    assert any("NISTAML.032" in name for name in found.standards)
    assert "threat model D" in found.configuration


def test_the_remedy_quotes_what_was_measured() -> None:
    rows = _rows(none=10, dplc=6, dpsgd=1)
    priced = tuple(
        replace(row, utility=worth(accuracy))
        for row, accuracy in zip(rows, (0.912, 0.9, 0.754), strict=True)
    )
    leak = next(f for f in findings(priced) if "without a defense" in f.title)
    best = next(row for row in rows if row.defense == "dpsgd")
    assert best.reid is not None
    assert (
        "Try DP-SGD, and audit it with more people; measured here: "
        f"{rate_text(best.reid)} re-identified (its verdict" in leak.remedy
    )
    assert "from 91 % to 75 % (untrained: 70 %)" in leak.remedy.replace("\u00a0", " ")
    unpriced = next(f for f in findings(rows) if "without a defense" in f.title)
    assert "accuracy was not measured" in unpriced.remedy


def test_a_defense_worth_no_more_than_no_training_is_no_remedy() -> None:
    rows = _rows(none=10, dplc=6, dpsgd=1)
    priced = tuple(
        replace(row, utility=worth(accuracy))
        for row, accuracy in zip(rows, (0.912, 0.9, 0.69), strict=True)
    )
    leak = next(f for f in findings(priced) if "without a defense" in f.title)
    # DP-SGD, under which fewer come back, is not passed over in silence.
    assert (
        "No defense measured here suffices; least came back under DPLC, of those whose network was "
        "shown to learn: " in leak.remedy
    )
    useless = tuple(replace(row, utility=worth(0.69)) for row in rows)
    leak = next(f for f in findings(useless) if "without a defense" in f.title)
    assert leak.remedy == NO_REMEDY


def test_a_defense_is_as_good_as_against_its_best_attack() -> None:
    asked = study(
        defenses=("none", "dplc", "dpsgd"), attacks=(IG, GAN), targets=10, deployed=("none",)
    )
    rows = table(
        asked,
        line(10, 10),
        line(10, 10, attack=GAN),
        line(0, 10, defense="dplc"),
        line(9, 10, defense="dplc", attack=GAN),
        line(2, 10, defense="dpsgd"),
        line(2, 10, defense="dpsgd", attack=GAN),
    )
    leak = next(f for f in findings(rows) if "without a defense" in f.title)
    assert "Try DP-SGD, and audit it with more people; measured here: " in leak.remedy


def test_the_control_is_never_a_finding_and_alternatives_are_none_beside_what_is_deployed() -> None:
    hits = {"none": 10, "dplc": 10, "dpsgd": 9}
    groups = [line(n, 10, defense=d) for d, n in hits.items()]

    def titles(*deployed: str) -> list[str]:
        asked = study(defenses=tuple(hits), targets=10, deployed=deployed)
        return sorted(f.title.rpartition(", ")[2] for f in findings(table(asked, *groups)))

    assert titles("dpsgd") == ["under DP-SGD"]
    assert titles() == ["under DP-SGD", "under DPLC"]
    assert titles("none") == ["without a defense"]


def test_no_remedy_is_invented() -> None:
    assert "No other defense was run" in findings(_rows(none=10))[0].remedy
    assert "No defense that was measured here" in findings(_rows(none=10, dplc=10))[0].remedy


def test_a_single_match_is_a_finding_of_its_own() -> None:
    (found,) = findings(_rows(none=1))
    assert (found.severity, found.confidence) == ("low", "low")
    assert "1 match from updates without a defense" in found.title
    assert findings(_rows(none=0)) == ()


def test_a_guarantee_of_something_else_is_told() -> None:
    rows = tuple(
        replace(row, claims=PARTIAL) if row.defense == "dplc" else row
        for row in _rows(none=10, dplc=10)
    )
    (found,) = (f for f in findings(rows) if "privacy claim" in f.title)
    assert "DPLC" in found.title
    assert (found.severity, found.confidence) == ("high", "high")
    assert "ε = 4" in found.claim
    assert "for one image" in found.claim
    assert "not covered: update" in found.claim
    clean = tuple(replace(row, claims=PARTIAL) for row in _rows(dplc=0))
    (quiet,) = findings(clean)
    assert quiet.severity == "low"
    covered = tuple(replace(row, claims=WHOLE) for row in _rows(dpsgd=10))
    assert not any("privacy claim" in f.title for f in findings(covered))
    broken = tuple(replace(row, claims=BROKEN) for row in _rows(dpsgd=0))
    (grave,) = findings(broken)
    assert (grave.severity, "is broken" in grave.title) == ("high", True)
    assert "ε = 0.1" not in grave.claim


def test_findings_are_ordered_and_numbered() -> None:
    rows = tuple(replace(r, claims=PARTIAL) for r in _rows(none=10, dplc=1, dpsgd=8))
    found = findings(rows)
    order = ["critical", "high", "medium", "low", "none"]
    ranks = [order.index(f.severity) for f in found]
    assert ranks == sorted(ranks)
    assert [f.id for f in found] == [f"F{k + 1:02d}" for k in range(len(found))]


def test_fingerprints_name_the_configuration_not_the_numbers() -> None:
    one, again, other = (
        findings(rows)[0].fingerprint for rows in (_rows(none=10), _rows(none=9), _rows(dplc=10))
    )
    assert one == again
    assert one != other
    both = findings(_rows(none=10, dplc=10))
    assert len({f.fingerprint for f in both}) == len(both)


def test_coverage_says_what_was_not_executed() -> None:
    asked = study(attacks=(IG, GAN), targets=10)
    found = {c.attack_class: c for c in coverage(categories_of(asked), table(asked, line(4, 10)))}
    classes = [c.value for c in AttackCategory if c is not AttackCategory.OTHER]
    assert list(found) == [*classes, *(c.attack_class for c in INFERENCE)]
    image_space = found["gradient inversion in image space"]
    assert (image_space.in_scope, image_space.executed) == (True, True)
    assert image_space.result.startswith("4 of 10 people re-identified under ")
    generative = found["gradient inversion with a generative prior"]
    assert (generative.in_scope, generative.executed, generative.result) == (True, False, "—")
    membership = found["membership inference"]
    assert (membership.in_scope, membership.executed, membership.result) == (False, False, "—")
    assert all(c.standards for c in found.values())


def test_coverage_of_clean_and_of_untested_rows() -> None:
    asked = study(targets=10)
    clean = coverage(categories_of(asked), table(asked, line(0, 10)))[0]
    assert clean.result.startswith("0 of 10")
    (row,) = table(asked, line(0, 10))
    untested = (replace(row, measurement=replace(measured(row), reid=None)),)
    assert coverage(categories_of(asked), untested)[0].result == "executed; identity not tested"


def test_a_users_attack_has_a_line() -> None:
    asked = study(attacks=("mine.attacks:Clever",), targets=10)
    found = coverage(categories_of(asked), table(asked, line(2, 10, attack="Clever")))[-1]
    assert found.attack_class == "other: Clever"
    assert found.executed
    (missing,) = (
        c for c in coverage(categories_of(asked), ()) if c.attack_class.startswith("other")
    )
    assert (missing.in_scope, missing.executed, missing.result) == (True, False, "—")
