"""Rows of recorded updates: what is asked of them alone, and verdicts that claim no more."""

from dataclasses import replace

from fedaudit.core.measures import Estimate
from fedaudit.core.source import SourceFacts
from fedaudit.reports import recorded
from fedaudit.reports.comparison import Row
from fedaudit.reports.measurement import Explained
from fedaudit.reports.power import inconclusive, short_of
from fedaudit.reports.results import Settings
from fedaudit.reports.trials import Group
from fedaudit.reports.verdicts import NOT_TESTED, judge
from fedaudit.scoring.identity import Gallery
from fedaudit.stats import intervals


def row_of_recording(
    source: SourceFacts,
    row: Row,
    groups: tuple[Group, Group, Group],
    settings: Settings,
    gallery: Gallery | None,
) -> Row:
    """The row with what is only asked of recorded updates, and a verdict that claims no more."""
    group, prior, noise = groups
    has_search = any(image.nearest for image in group.scores().values())
    clients = {t.cell.target: t.images[0].person for t in group.trials}

    def explained(of: Group, other: bool = False) -> Estimate | None:
        values = {
            t.cell.target: t.explained_other if other else t.explained
            for t in of.trials
            if t.cell.target in clients
        }
        numbers = {k: value for k, value in values.items() if value is not None}
        whose = [clients[target] for target in numbers]
        return intervals.mean(list(numbers.values()), whose, (-1, 1)) if numbers else None

    assert row.measurement
    own = explained(group)
    measurement = replace(
        row.measurement,
        searched=has_search,
        chance=recorded.chance_of(gallery) if has_search else None,
        explained=Explained(own, explained(group, other=True), explained(prior), explained(noise))
        if own
        else None,
    )
    row = replace(
        row, model_state=source.model_states.get(row.scenario, ""), measurement=measurement
    )
    if measurement.reid is None:
        sentence = recorded.not_identified(measurement)
        return replace(row, verdict=replace(NOT_TESTED, sentence=sentence))
    verdict = row.verdict
    if has_search:
        verdict = judge(measurement, settings, passive=True, valid=True)
    if verdict.kind == "NO LEAK FOUND ABOVE LIMIT" and not (
        measurement.explained and measurement.explained.beyond_controls
    ):
        why = "the attack explains the updates no better than its controls do, and a wrong fact, "
        why += "such as a learning rate, or a protection would look alike"
        verdict = inconclusive(verdict, "not explained", why)
    if verdict.kind != "LEAK DEMONSTRATED" and (seen := recorded.copies_text(measurement)):
        verdict = replace(verdict, sentence=f"{verdict.sentence} {seen}")
    return replace(row, verdict=verdict)


def with_power_on_known_faces(row: Row, why: str) -> Row:
    """Verdict of an attack that did not find known faces: inconclusive."""
    if row.verdict.kind != "NO LEAK FOUND ABOVE LIMIT":
        return row
    reason, words = short_of(row)
    if not reason and why:
        reason, words = "no power", why
    return replace(row, verdict=inconclusive(row.verdict, reason, words)) if reason else row
