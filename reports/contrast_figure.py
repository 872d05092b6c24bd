"""The figure of contrasts: attacks against each other on the same targets."""

from collections.abc import Mapping, Sequence

from fedaudit.reports.charts import Key, series
from fedaudit.reports.comparison import Row
from fedaudit.reports.figures import Columns, Figure, Panel, brief, table, unique
from fedaudit.reports.lanes import Record, bounds, intervals
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Contrast, Results
from fedaudit.reports.text import estimate_range, seconds, signed


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
            "interval that crosses the zero line separates nothing, nor does one target, which has "
            "no interval. At the right: the difference, and CPU seconds a target, first / second, "
            "so that a win bought with computing time shows as such; what an attack learned once "
            "for all targets is not in them."
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
