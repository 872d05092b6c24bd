"""The evidence matrix: one person a row, and what each defense let come back of them."""

import random
from collections.abc import Mapping, Sequence

from fedaudit.core.trial import ImageScore, Trial
from fedaudit.reports.comparison import DefenseLine
from fedaudit.reports.exhibits import SEED
from fedaudit.reports.results import EvidenceCell, EvidenceMatrix, EvidenceRow
from fedaudit.reports.trials import Place, Trials

WORST = 4
"""People of a matrix who are shown because most came back of them."""
DRAWN = 4
"""People of a matrix who are drawn at random from the others, the worst are not the rule."""
NEAREST = 3
"""People of the gallery whose distance to a reconstruction is listed."""


def evidence_matrices(
    lines: Sequence[DefenseLine], trials: Trials, thresholds: Mapping[str, float | None]
) -> tuple[EvidenceMatrix, ...]:
    """One matrix a scenario: the photos that were attacked under every defense's strongest attack.

    Rows are chosen by what came back under the deployed defenses, in a comparison under any.
    """
    matrices = []
    for scenario in dict.fromkeys(line.scenario for line in lines):
        mine = [line for line in lines if line.scenario == scenario and line.attack]
        groups = [trials.group(scenario, line.defense, line.attack or "") for line in mine]
        tables = [
            {
                (t.cell.target, t.cell.seed, k): (t, k, image)
                for t in group.trials
                for k, image in enumerate(t.images)
            }
            for group in groups
        ]
        places = sorted({place for table in tables for place in table})
        if not places:
            continue
        sources = [
            table
            for table, line in zip(tables, mine, strict=True)
            if line.role == "deployed" or all(other.role != "deployed" for other in mine)
        ]
        rows = tuple(_row(place, tables) for place in _choose(places, sources))
        columns = tuple((line.defense, line.attack or "") for line in mine)
        limit = thresholds.get(scenario)
        matrices.append(EvidenceMatrix(scenario, columns, rows, len(places), limit))
    return tuple(matrices)


Table = Mapping[Place, tuple[Trial, int, ImageScore]]


def _choose(places: Sequence[Place], tables: Sequence[Table]) -> list[Place]:
    """The worst, then others by lot."""

    def likeness(place: Place) -> float:
        scores = [table[place][2] for table in tables if place in table]
        cosines = [score.cosine for score in scores if score.cosine is not None]
        return max(cosines, default=max((s.metrics.get("ssim", -2.0) for s in scores), default=-2))

    ranking = sorted(places, key=lambda place: (-likeness(place), place))
    rest = sorted(ranking[WORST:])
    sample = random.Random(SEED).sample(rest, min(DRAWN, len(rest)))  # a fixed choice  # nosec B311
    return [*ranking[:WORST], *sorted(sample)]


def _row(place: Place, tables: Sequence[Table]) -> EvidenceRow:
    entries = [table.get(place) for table in tables]
    person = next(entry[2].person for entry in entries if entry)
    return EvidenceRow(
        person, place[2], tuple(_cell(*entry) if entry else None for entry in entries)
    )


def _cell(trial: Trial, image: int, score: ImageScore) -> EvidenceCell:
    return EvidenceCell(
        cell=trial.cell.key,
        image=image,
        cosine=score.cosine,
        match=score.reidentified,
        metrics=score.metrics,
        steps=trial.iterations,
        restarts=trial.restarts,
        seconds=trial.seconds,
        adaptive=trial.adaptive,
        history=tuple((step, value) for step, value in trial.history),
        nearest=_nearest(trial, score),
    )


def _nearest(trial: Trial, score: ImageScore) -> tuple[tuple[str, float], ...]:
    """The people of the gallery who are closest to what was rebuilt of this person."""
    lineup = trial.lineup
    if lineup is None or score.person not in lineup.present:
        return ()
    row = lineup.cosines[lineup.present.index(score.person)]
    ranking = sorted(zip(lineup.people, row, strict=True), key=lambda entry: (-entry[1], entry[0]))
    return tuple(ranking[:NEAREST])
