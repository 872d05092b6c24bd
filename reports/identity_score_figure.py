"""The figure of identity cosines: how close each reconstruction comes to its person."""

from collections.abc import Sequence
from statistics import median, quantiles

from markupsafe import Markup

from fedaudit.reports.charts import Key
from fedaudit.reports.figures import Figure, Panel, Table, scenario_title, unique
from fedaudit.reports.lanes import ticks
from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.results import Results, ScorePoint
from fedaudit.reports.text import ABSENT, number

ROLES = {"audit": "reconstruction", "prior_only": "prior only", "noise": "noise"}
_ROLE_KEYS = (
    Key("reconstruction", "tick", "c1"),
    Key("prior only", "tick", "prior"),
    Key("noise", "tick", "c2"),
)
MOST_TICKS = 120
"""Ticks a lane; beyond, evenly spaced quantiles stand for the points and keep the page small."""


def scores(results: Results) -> Figure:
    """Figure (b): identity cosines of all reconstructions, with the threshold."""
    thresholds = {ceiling.scenario: ceiling.threshold for ceiling in results.ceilings}
    everywhere = thresholds.get("all")
    panels, lines = [], []
    for scenario in unique([point.scenario for point in results.points]):
        here = [point for point in results.points if point.scenario == scenario]
        threshold = thresholds.get(scenario, everywhere)
        title = scenario_title(results.rows, scenario)
        label = f"Identity cosines by defense and role, with the match threshold; {title}"
        panels.append(Panel(title, label, _score_panel(here, threshold)))
        for defense in unique([point.defense for point in here]):
            for role in unique([point.role for point in here if point.defense == defense]):
                values = _cosines(here, defense, role)
                above = ABSENT if threshold is None else _above(values, threshold)
                low, mid, high = (min(values), median(values), max(values))
                cells = (scenario, defense_name(defense), ROLES.get(role, role), above)
                lines.append((*cells, *(number(v) for v in (low, mid, high))))
    return Figure(
        id="scores",
        title="How close each face comes to its person",
        reading=(
            "One tick per reconstructed image of any attack: its identity cosine to another photo "
            "of the same person. Ticks right of the dashed line are re-identified. By this measure "
            "reconstructions that sit where the prior-only ticks sit show no more than chance. "
            f"Lanes of more than {MOST_TICKS} images show evenly spaced quantiles."
        ),
        panels=tuple(panels)
        or (Panel("", "", why="No identity cosines were measured: the study ran no embedder."),),
        keys=(*_ROLE_KEYS, Key("match threshold", "dash", "limit")) if panels else (),
        table=Table(
            (
                "Scenario",
                "Defense",
                "Role",
                "Above threshold ↓ (count of n)",
                "Lowest cosine ↓ (−1–1)",
                "Median cosine ↓ (−1–1)",
                "Highest cosine ↓ (−1–1)",
            ),
            tuple(lines),
        ),
    )


def _cosines(points: Sequence[ScorePoint], defense: str, role: str) -> list[float]:
    return sorted(p.cosine for p in points if p.defense == defense and p.role == role)


def _above(values: Sequence[float], threshold: float) -> str:
    return f"{sum(v >= threshold for v in values)} of {len(values)}"


def _score_panel(points: Sequence[ScorePoint], threshold: float | None) -> Markup:
    defenses = unique([point.defense for point in points])
    roles = [role for role in ROLES if any(point.role == role for point in points)]
    marks, notes = [], []
    for defense in defenses:
        for role in roles:
            values = _cosines(points, defense, role)
            if not values:
                continue
            lane = {"group": defense_name(defense), "lane": ROLES[role]}
            few = values if len(values) <= MOST_TICKS else quantiles(values, n=MOST_TICKS)
            marks += [{**lane, "value": value} for value in few]
            above = f"n = {len(values)}" if threshold is None else _above(values, threshold)
            notes.append({**lane, "note": above})
    return ticks(
        marks,
        notes,
        _ROLE_KEYS,
        x_title="Identity cosine ↓ better (no unit, −1–1)",
        domain=(min(-0.2, *(point.cosine for point in points)), 1.0),
        rule=threshold,
    )
