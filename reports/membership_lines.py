"""Membership in a report: what each defense leaves of it, coverage, controls and findings."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fedaudit.attacks.membership.shadow_clients import SHADOWS
from fedaudit.core.inference import Membership, MembershipScore, PropertyScore
from fedaudit.core.measures import Rate
from fedaudit.core.scenario import Study
from fedaudit.reports.comparison import Role, role_of
from fedaudit.reports.findings import fingerprint
from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.results import Control, Coverage, Finding
from fedaudit.reports.standards import MEMBERSHIP, PROPERTY
from fedaudit.reports.text import number, percent
from fedaudit.stats.intervals import holm
from fedaudit.study.inventory import Inventory
from fedaudit.study.jobs import federation_jobs
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.stored_values import read_as

ALPHA = 0.05
FPR = 0.01
"""At which members are counted in tables; where the data allow no so small a rate, the smallest."""
SOUGHT = ("glasses", "beard", "sex", "expression")
"""Properties that readers ask for, and that take somebody who says whose photos have them."""
CONTROL = 0.01
"""Of the control's p-value, shared by all controls of a report."""


def memberships(folder: RunFolder, study: Study, stock: Inventory) -> tuple[Membership, ...]:
    """What the study's jobs found, with p-values corrected for all of them together."""
    keys = set(stock.done)
    jobs = [job for job in federation_jobs(study) if job.asks == "inference" and job.key in keys]
    lines = [
        read_as(Membership, folder.measurement(job.key), folder.files(job.kind, job.key)[0])
        for job in jobs
    ]
    p_values = iter(holm([score.p_value for line in lines for score in line.scores]))
    of_properties = iter(holm([one.p_value for line in lines for one in line.properties]))
    return tuple(
        replace(
            line,
            scores=tuple(replace(score, p_adjusted=next(p_values)) for score in line.scores),
            properties=tuple(
                replace(one, p_adjusted=next(of_properties)) for one in line.properties
            ),
        )
        for line in lines
    )


def recall(score: MembershipScore) -> tuple[float, Rate | None]:
    """The false-positive rate of tables, and the recall at it."""
    recalls = [one for one in score.recalls if one.tpr]
    at = next(
        (one for one in recalls if one.fpr == FPR), recalls[0] if recalls else score.recalls[0]
    )
    return at.fpr, at.tpr


def strongest_score(line: Membership, level: str) -> MembershipScore | None:
    """The attack that recognizes most members at a level; None where it was not tested."""
    scores = [score for score in line.scores if score.level == level]

    def strength(score: MembershipScore) -> tuple[float, float]:
        rate = recall(score)[1]
        return rate.value if rate else 0.0, score.auc

    return max(scores, key=strength, default=None)


def is_demonstrated(line: Membership) -> bool:
    """Whether members were told from others more often than chance allows."""
    return any(score.p_adjusted <= ALPHA for score in line.scores)


def membership_coverage(lines: Sequence[Membership]) -> Coverage:
    """The line of membership inference among the classes of attack."""
    valid = [line for line in lines if line.scores]
    count = sum(map(is_demonstrated, valid))
    result = f"above chance in {count} of {len(valid)} federations" if valid else "—"
    return Coverage("membership inference", bool(lines), bool(valid), result, MEMBERSHIP)


def property_coverage(lines: Sequence[Membership]) -> Coverage:
    """The line of property inference among the classes of attack."""
    scores = [one for line in lines for one in line.properties]
    count = sum(one.p_adjusted <= ALPHA for one in scores)
    result = f"{count} of {len(scores)} told above chance" if scores else "—"
    return Coverage("property inference", bool(lines), bool(scores), result, PROPERTY)


def unlabeled_properties(lines: Sequence[Membership]) -> str:
    """Properties that were not tested, as nobody said whose photos have them; "" where all were.

    An expression is one of several, each a property ("expression: smile").
    """
    names = {one.property.partition(":")[0] for line in lines for one in line.properties}
    return ", ".join(name for name in SOUGHT if name not in names)


def membership_controls(lines: Sequence[Membership]) -> tuple[Control, ...]:
    """Controls: nobody outside all clients' data may be told from others outside it."""
    tests = [line for line in lines if line.control is not None]
    return tuple(
        Control(
            f"membership: outsiders called members, {line.defense}",
            line.scenario,
            f"p = {line.control:.2g}",
            f"p ≥ {CONTROL / len(tests):.2g}: nobody trained on them",
            line.control * len(tests) >= CONTROL,
        )
        for line in tests
        if line.control is not None
    )


def membership_findings(study: Study, lines: Sequence[Membership]) -> Iterator[Finding]:
    """A finding for each judged defense under which members are recognized."""
    role: Role = "deployed" if study.audited else "alternative"
    for line in lines:
        scenario = study.scenario(line.scenario)
        choice = next(one for one in scenario.defenses if one.label == line.defense)
        if role_of(study, choice) != role:
            continue
        if is_demonstrated(line):
            yield _finding(line, [one for one in lines if one.scenario == line.scenario])
        for one in line.properties:
            if one.p_adjusted <= ALPHA:
                yield _of_property(line, one)


def _finding(line: Membership, rivals: Sequence[Membership]) -> Finding:
    best = min(line.scores, key=lambda score: (score.p_adjusted, -score.auc))
    clauses = [
        f"{_words(score)} ({score.attack})"
        for level in ("person", "image")
        if (score := strongest_score(line, level))
    ]
    low = max(
        (rate.low for score in line.scores if (rate := recall(score)[1])),
        default=0.0,
    )
    rest = [one for one in rivals if one.scores and not is_demonstrated(one)]
    remedy = "Train with DP-SGD, and run the same study again: only noise bounds membership."
    if rest:
        names = ", ".join(defense_name(one.defense) for one in rest)
        remedy = f"Measured here: nothing above chance under {names}."
    return Finding(
        id="",
        severity="high" if low >= 10 * FPR else "medium",
        confidence="high",
        cause="Updates tell who is in a client's data",
        title=f"Updates tell who is in a client's data, {_under(line)}",
        claim="; ".join(clauses) + ".",
        evidence=f"{best.attack}, {best.level}: AUC {number(best.auc)}, where 97.5 % of shuffled "
        f"memberships stay below {number(best.shuffled)}; p = {best.p_adjusted:.2g} after Holm.",
        configuration=f"scenario {line.scenario}: {line.clients} clients, rounds "
        f"{', '.join(map(str, line.rounds))}; {line.members} people in their data, "
        f"{line.outsiders} in nobody's",
        remedy=remedy,
        standards=MEMBERSHIP,
        fingerprint=fingerprint("membership", line.scenario, line.defense),
    )


def _of_property(line: Membership, one: PropertyScore) -> Finding:
    return Finding(
        id="",
        severity="medium",
        confidence="high",
        cause="Updates tell what a client's photos have in common",
        title=f"Updates tell which clients' photos have more of: {one.property}, {_under(line)}",
        claim=f"The order of the {line.clients} clients was told with a rank correlation of "
        f"{number(one.correlation)}.",
        evidence=f"{SHADOWS} shadow clients in each of {len(line.rounds)} rounds, trained on "
        f"people in nobody's data; p = {one.p_adjusted:.2g} after Holm.",
        configuration=f"scenario {line.scenario}: rounds {', '.join(map(str, line.rounds))}",
        remedy="Aggregate securely, so that no client's update is seen alone, or add noise for "
        "clients (client DP): noise for single images does not hide what many have in common.",
        standards=PROPERTY,
        fingerprint=fingerprint("property", line.scenario, line.defense, one.property),
    )


def _under(line: Membership) -> str:
    return "without a defense" if line.defense == "none" else f"under {defense_name(line.defense)}"


def _words(score: MembershipScore) -> str:
    fpr, rate = recall(score)
    what = "people by other photos of them" if score.level == "person" else "training photos"
    if rate is None:
        return f"{what}: AUC {number(score.auc)}"
    return (
        f"{rate.hits} of {rate.n} {what} recognized at {percent(fpr)} false positives "
        f"(95 % CI {percent(rate.low)} to {percent(rate.high)})"
    )
