"""The figures in lanes: re-identification, identity cosines, model states, contrasts of attacks."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles

from markupsafe import Markup

from fedaudit.core.measures import Rate
from fedaudit.reports.charts import Key, series
from fedaudit.reports.comparison import Row
from fedaudit.reports.figures import (
    Columns,
    Figure,
    Panel,
    Table,
    brief,
    scenario_title,
    state_of,
    table,
    unique,
)
from fedaudit.reports.lanes import REID_SCALE, Record, bounds, intervals, ticks
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Contrast, Results, ScorePoint
from fedaudit.reports.text import (
    ABSENT,
    estimate,
    estimate_range,
    number,
    percent,
    rate,
    seconds,
    signed,
)

ROLES = {"audit": "reconstruction", "prior_only": "prior only", "noise": "noise"}
_ROLE_KEYS = (
    Key("reconstruction", "tick", "c1"),
    Key("prior only", "tick", "prior"),
    Key("noise", "tick", "c2"),
)
MOST_TICKS = 120
"""Ticks a lane; beyond, evenly spaced quantiles stand for the points and keep the page small."""


def reidentification(results: Results) -> Figure:
    """Figure (a): re-identification by attack × defense, with the prior-only line."""
    attacks = series(unique([attack_name(row.attack) for row in results.rows]))
    panels = []
    for scenario in unique([row.scenario for row in results.rows]):
        rows = [row for row in results.rows if row.scenario == scenario]
        title = scenario_title(rows, scenario)
        if not any(row.reid for row in rows):
            panels.append(Panel(title, "", why="Identity was not measured in this scenario."))
            continue
        svg = _reid_panel(rows, attacks, results.settings.reid_limit)
        label = f"Re-identification rate of each attack against each defense; {title}"
        panels.append(Panel(title, label, svg))
    columns: Columns[Row] = {
        "Scenario": lambda row: row.scenario,
        "Model state": state_of,
        "Defense": lambda row: defense_name(row.defense),
        "Attack": lambda row: attack_name(row.attack),
        "Re-identification ↓ (%, 0–100) [95 % CI] n": lambda row: rate(row.reid),
        "Prior only ↓ (%, 0–100) [95 % CI] n": lambda row: rate(_prior(row)),
    }
    return Figure(
        id="reid",
        title="Re-identification by attack and defense",
        reading=(
            "Point: share of reconstructed faces that the independent embedder matches to the "
            f"right person at FMR {results.settings.fmr:g}. Bar: exact 95 % interval. Gray tick: "
            "the same attack on an invented person’s update (prior only). A bar that clears it "
            f"is leakage. Dashed line: the limit T = {percent(results.settings.reid_limit)}."
        ),
        panels=tuple(panels),
        keys=(
            *attacks,
            Key("prior only", "tick", "prior"),
            Key(f"limit T = {percent(results.settings.reid_limit)}", "dash", "limit"),
        ),
        table=table(columns, results.rows),
    )


def _prior(row: Row) -> Rate | None:
    return row.measurement.prior if row.measurement else None


def _reid_panel(rows: Sequence[Row], attacks: Sequence[Key], limit: float) -> Markup:
    records = [
        {
            "group": defense_name(row.defense),
            "lane": attack_name(row.attack),
            **bounds(row.reid),
            "prior": prior.value if (prior := _prior(row)) else None,
            "note": f"{row.reid.hits} of {row.reid.n}" if row.reid else f"{ABSENT} not tested",
        }
        for row in rows
    ]
    return intervals(
        records,
        attacks,
        x_title=REID_SCALE,
        domain=(0.0, 1.0),
        axis_format=".0%",
        rule=limit,
    )


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
            "One tick per reconstructed image: its identity cosine to another photo of the same "
            "person. Ticks right of the dashed line are re-identified. Reconstructions that sit "
            "where the prior-only ticks sit owe nothing to the update. "
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


def model_states(results: Results) -> Figure:
    """Figure (d): what the undefended update gives away, by scenario."""
    rows = [row for row in results.rows if row.defense == "none"]
    attacks = series(unique([attack_name(row.attack) for row in results.rows]))
    panels = [_state_panel(rows, attacks, metric) for metric in ("SSIM", "reid")] if rows else []
    columns: Columns[Row] = {
        "Scenario": lambda row: row.scenario,
        "Model state": state_of,
        "Network": lambda row: row.network,
        "Batch size (images)": lambda row: str(row.batch_size),
        "Attack": lambda row: attack_name(row.attack),
        "SSIM ↓ (no unit, −1–1) [95 % CI] n": lambda row: estimate(
            row.measurement.ssim if row.measurement else None
        ),
        "Re-identification ↓ (%, 0–100) [95 % CI] n": lambda row: rate(row.reid),
    }
    return Figure(
        id="states",
        title="Fresh against trained, by network, undefended",
        reading=(
            "The same attacks on different model states and networks, without a defense. An update "
            "to a fresh model usually gives away more than one to a trained model: read the two "
            "apart. n differs by lane and stands at the right."
        ),
        panels=tuple(panels)
        or (Panel("", "", why="Nothing was audited without a defense: there is no baseline."),),
        keys=(*attacks, Key("prior only", "tick", "prior")) if rows else (),
        table=table(columns, rows),
    )


def _state_panel(rows: Sequence[Row], attacks: Sequence[Key], metric: str) -> Panel:
    of_images = metric == "SSIM"
    title = "Structural similarity" if of_images else "Re-identification"
    records: list[Record] = []
    for row, m in ((row, row.measurement) for row in rows if row.measurement):
        value, control = (m.ssim, m.prior_ssim) if of_images else (m.reid, m.prior)
        if value is not None:
            records.append(
                {
                    "group": row.scenario,
                    "under": state_of(row),
                    "lane": attack_name(row.attack),
                    **bounds(value),
                    "prior": control.value if control else None,
                    "note": f"n = {value.n}",
                }
            )
    if not records:
        why = "No attack of the study attacks what was sent."
        if any(row.measurement and row.measurement.ssim for row in rows):
            why = "Identity was not measured: the study ran no embedder."
        return Panel(title, "", why=why)
    least = min(0.0, *(record["low"] for record in records)) if of_images else 0.0
    scale = "SSIM ↓ better (no unit, shown 0–1)" if of_images else REID_SCALE
    svg = intervals(
        records,
        attacks,
        x_title=scale,
        domain=(least, 1.0),
        axis_format=".1f" if of_images else ".0%",
    )
    return Panel(title, f"{title} of undefended updates by scenario and attack", svg)


def contrasts(results: Results) -> Figure:
    """Figure (e): attacks against each other on the same targets."""
    names = unique([_pair(contrast) for contrast in results.contrasts])
    keys = series(names)
    scales = {m.name: f"{m.title} ({m.scale})" for m in results.metrics}
    scales["reid"] = "Re-identification (share, 0–1)"
    panels = [
        _contrast_panel(
            [c for c in results.contrasts if c.metric == metric], keys, results.rows, scales
        )
        for metric in unique([contrast.metric for contrast in results.contrasts])
    ]
    columns: Columns[Contrast] = {
        "Scenario": lambda c: c.scenario,
        "Defense": lambda c: defense_name(c.defense),
        "Metric": lambda c: c.metric,
        "First − second": _pair,
        "Difference [95 % CI] n (unit of the metric)": lambda c: (
            f"{signed(c.difference.value)} {estimate_range(c.difference)} n = {c.difference.n}"
        ),
        "Interval": lambda c: c.difference.method,
        "CPU time, first ↓ (s, 0 and up)": lambda c: seconds(c.seconds_first),
        "CPU time, second ↓ (s, 0 and up)": lambda c: seconds(c.seconds_second),
    }
    return Figure(
        id="contrasts",
        title="Attacks against each other",
        reading=(
            "Paired differences on the same targets, first minus second, with 95 % intervals. An "
            "interval that crosses the zero line separates nothing. At the right: the difference, "
            "and CPU seconds a target, first / second, so that a win bought with computing time "
            "shows as such."
        ),
        panels=tuple(panels)
        or (Panel("", "", why="No two attacks ran on the same targets: nothing to compare."),),
        keys=keys,
        table=table(columns, results.contrasts),
    )


def _pair(contrast: Contrast) -> str:
    return f"{attack_name(contrast.first)} − {attack_name(contrast.second)}"


def _contrast_panel(
    contrasts_: Sequence[Contrast],
    keys: Sequence[Key],
    rows: Sequence[Row],
    scales: Mapping[str, str],
) -> Panel:
    first = contrasts_[0]
    metric = scales.get(first.metric, first.metric)
    ahead = "first" if first.higher_is_better else "second"
    records: list[Record] = [
        {
            "group": defense_name(c.defense),
            "under": f"{c.scenario}, {brief(rows, c.scenario)}",
            "lane": _pair(c),
            **bounds(c.difference),
            "note": f"{signed(c.difference.value)} · {seconds(c.seconds_first)} /"
            f" {seconds(c.seconds_second)} s",
        }
        for c in contrasts_
    ]
    reach = max(0.05, *(abs(v) for c in contrasts_ for v in (c.difference.low, c.difference.high)))
    svg = intervals(
        records,
        keys,
        x_title=f"{metric}: first − second (right of zero: the {ahead} attack recovers more)",
        domain=(-reach * 1.05, reach * 1.05),
        axis_format=".2f",
        rule=0.0,
        rule_color="ink",
        note_width=150,
    )
    return Panel(metric, f"Paired differences of attacks in {metric}", svg)
