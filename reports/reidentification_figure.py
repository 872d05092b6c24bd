"""The figure of re-identification rates: each attack against each defense, beside prior-only."""

from collections.abc import Sequence

from markupsafe import Markup

from fedaudit.core.measures import Rate
from fedaudit.reports.charts import Key, series
from fedaudit.reports.comparison import Row
from fedaudit.reports.figures import Columns, Figure, Panel, scenario_title, state_of, table, unique
from fedaudit.reports.lanes import REID_SCALE, bounds, intervals
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, percent, rate


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
            "the same attack on an invented person’s update (prior only). Bars show how sure a "
            "rate is; whether a leak is demonstrated is for the test on identity to say. Dashed "
            f"line: the limit T = {percent(results.settings.reid_limit)}."
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
