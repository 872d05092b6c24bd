"""The figure of model states: what undefended updates of fresh and trained networks give away."""

from collections.abc import Sequence

from fedaudit.reports.charts import Key, series
from fedaudit.reports.comparison import Row
from fedaudit.reports.figures import Columns, Figure, Panel, state_of, table, unique
from fedaudit.reports.lanes import REID_SCALE, Record, bounds, intervals
from fedaudit.reports.plain_names import attack_name
from fedaudit.reports.results import Results
from fedaudit.reports.text import estimate, rate


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
