"""The privacy–utility frontier: a defense is a trade, and some trades are beaten by others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, floor
from statistics import fmean

import altair as alt
from markupsafe import Markup

from fedaudit.core.measures import Rate, Utility
from fedaudit.federation.utility import accuracy_difference
from fedaudit.reports.charts import COLORS, NARROW, Key, both, draw, lines, over
from fedaudit.reports.comparison import Row, met_by_adaptive, strongest
from fedaudit.reports.figures import Columns, Figure, Panel, scenario_title, table, unique
from fedaudit.reports.lanes import rate_axis, short
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Results
from fedaudit.reports.text import accuracy, rate

FEW = 6
"""Marks that all have their names beside them; of more, only those that matter to a choice."""


@dataclass(frozen=True)
class Mark:
    """One defense: what it is worth, and what its strongest attack still recovers.

    Attributes:
        met_by_adaptive: An attack that took the defense into account was measured.
    """

    defense: str
    attack: str
    utility: Utility
    reid: Rate
    met_by_adaptive: bool
    dominated_by: str | None = None


def marks(rows: Sequence[Row]) -> tuple[Mark, ...]:
    """One mark per defense of a scenario, at the attack that re-identifies most."""
    points: list[Mark] = []
    for defense in unique([row.defense for row in rows]):
        tests = [row for row in rows if row.defense == defense and row.utility]
        top = strongest(tests)
        if top and top.reid and top.utility:
            points.append(Mark(defense, top.attack, top.utility, top.reid, met_by_adaptive(tests)))
    return tuple(replace(m, dominated_by=_dominator(m, points)) for m in points)


def frontier(results: Results) -> Figure:
    """Figure (c): verification accuracy on people never seen, against re-identification."""
    panels: list[Panel] = []
    entries: list[tuple[str, Mark]] = []
    for scenario in unique([row.scenario for row in results.rows]):
        points = marks([row for row in results.rows if row.scenario == scenario])
        title = scenario_title(results.rows, scenario)
        if not points:
            why = "No defense has both a measured utility and a measured re-identification rate."
            panels.append(Panel(title, "", why=why))
            continue
        if len(unique([row.defense for row in results.rows if row.scenario == scenario])) < 2:
            continue  # one defense is no trade; its numbers stand in the comparison
        label = f"Verification accuracy against re-identification by defense; {title}"
        names = ("none", *results.deployed)
        few = len(points) <= FEW
        labels = tuple(m for m in points if few or not _remark(m) or m.defense in names)
        panels.append(Panel(title, label, both(partial(_panel, points, labels))))
        entries += [(scenario, mark) for mark in points]
    columns: Columns[tuple[str, Mark]] = {
        "Scenario": lambda x: x[0],
        "Defense": lambda x: defense_name(x[1].defense),
        "Verification accuracy ↑ (%, 50 is chance, to 100) [95 % CI] people": lambda x: accuracy(
            x[1].utility.accuracy
        ),
        "Untrained ↑": lambda x: accuracy(x[1].utility.untrained),
        "Central training ↑": lambda x: accuracy(x[1].utility.central),
        "Re-identification ↓ (%, 0–100) [95 % CI] n": lambda x: rate(x[1].reid),
        "Strongest attack": lambda x: attack_name(x[1].attack),
        "Dominated": lambda x: (
            f"by {defense_name(x[1].dominated_by)}" if x[1].dominated_by else "no"
        ),
    }
    return Figure(
        id="frontier",
        title="Privacy against utility",
        reading=(
            "Right is more useful, down is less leakage. Each mark is one defense under its "
            "strongest attack, with 95 % intervals of both. Left of the dotted line a trained "
            "network is worth less than an untrained one; the dashed line is what one place with "
            "everybody's photos reaches. Hollow marks are dominated (another defense is as good in "
            "both, and better in one by more than chance explains) or are not shown to beat the "
            "untrained network, and such a defense dominates none. Nor does one that no attack met "
            "which knows it, where such an attack met the other."
        ),
        panels=tuple(panels),
        keys=(
            Key("on the frontier", "circle", "c1"),
            Key("dominated, or no gain over the untrained network", "ring", "prior"),
        ),
        table=table(columns, entries),
    )


def _dominator(mark: Mark, others: Sequence[Mark]) -> str | None:
    """A defense no worse in either by estimate, and better in one by an interval."""
    for other in others:
        if not other.utility.helps or (mark.met_by_adaptive and not other.met_by_adaptive):
            continue
        more = accuracy_difference(other.utility, mark.utility)
        if more is None or more.value < 0 or other.reid.value > mark.reid.value:
            continue
        if more.low > 0 or other.reid.high < mark.reid.low:
            return other.defense
    return None


def _panel(points: Sequence[Mark], subset: Sequence[Mark], width: int) -> Markup:
    """All marks, and the names of some."""
    small = width == NARROW
    worth = [x for m in points for x in (m.utility.accuracy.low, m.utility.accuracy.high)]
    chance = fmean(m.utility.untrained.value for m in points)
    central = next((m.utility.central.value for m in points if m.utility.central), None)
    worth += [chance, *([] if central is None else [central])]
    domain = [floor(min(worth) * 20 - 0.6) / 20, min(1.0, ceil(max(worth) * 20 + 0.6) / 20)]
    records = [
        {
            "accuracy": m.utility.accuracy.value,
            "left": m.utility.accuracy.low,
            "right": m.utility.accuracy.high,
            "reid": m.reid.value,
            "low": m.reid.low,
            "high": m.reid.high,
            "beaten": bool(_remark(m)),
        }
        for m in points
    ]
    labels = [
        {
            "accuracy": m.utility.accuracy.value,
            "reid": m.reid.value,
            "label": short(defense_name(m.defense), 17 if small else 20)
            + ("" if small else _remark(m)),
            "edge": domain[1],
            "height": height,
        }
        for m, height in zip(subset, _spread([m.reid.value for m in subset]), strict=True)
    ]
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    left, right = (52, 124) if small else (72, 214)
    wording = "Verification accuracy on held-out people ↑ better (%, 50 is chance, to 100)"
    title = lines(wording, width - left - right + 40)
    axis = alt.Axis(format=".0%", tickCount=4 if small else 6)
    x = alt.X("accuracy:Q", title=title, scale=scale, axis=axis)

    base = over(records).encode(x=x)
    leader = (
        over(labels)
        .mark_rule(color=COLORS["prior"], strokeWidth=1, opacity=0.6, strokeDash=[2, 3])
        .encode(x=x)
    )
    layers = [
        over([{"accuracy": value}])
        .mark_rule(color=COLORS["muted"], strokeWidth=1.5, strokeDash=dash)
        .encode(x=x)
        for value, dash in ((chance, [1, 3]), (central, [6, 4]))
        if value is not None
    ]
    layers += [
        leader.encode(y=rate_axis("reid"), x2=alt.X2("edge:Q"), y2=alt.Y2("height:Q")),
        base.transform_filter("!datum.beaten")
        .mark_line(color=COLORS["c1"], strokeWidth=1.5, opacity=0.5)
        .encode(y=rate_axis("reid"), order=alt.Order("accuracy:Q")),
    ]
    for condition, color in (("datum.beaten", "prior"), ("!datum.beaten", "c1")):
        part = base.transform_filter(condition)
        fill = COLORS["surface" if color == "prior" else color]
        layers += [
            part.mark_rule(color=COLORS[color], strokeWidth=2.5, opacity=0.5).encode(
                y=rate_axis("low"), y2=alt.Y2("high:Q")
            ),
            part.mark_rule(color=COLORS[color], strokeWidth=2.5, opacity=0.5).encode(
                x=alt.X("left:Q", title=title, scale=scale, axis=axis),
                x2=alt.X2("right:Q"),
                y=rate_axis("reid"),
            ),
            part.mark_point(
                size=110, opacity=1, fill=fill, stroke=COLORS[color], strokeWidth=2
            ).encode(y=rate_axis("reid")),
        ]
    text = over(labels).mark_text(align="left", dx=8, fontSize=13)
    layers.append(
        text.encode(x=alt.XValue("width"), y=rate_axis("height"), text=alt.Text("label:N"))
    )
    bottom = 34 + 14 * len(title)
    return draw(layers, height=320, width=width, left=left, right=right, bottom=bottom)


def _remark(mark: Mark) -> str:
    if not mark.utility.helps:
        return " (no gain)"
    return " (dominated)" if mark.dominated_by else ""


def _spread(values: Sequence[float]) -> list[float]:
    """Heights of labels beside the plot: at their mark where there is room, else moved up or down.

    >>> [round(height, 2) for height in _spread([0.5, 0.5, 0.0])]
    [0.5, 0.56, 0.0]
    """
    gap = min(0.06, 0.96 / max(1, len(values)))
    order = sorted(range(len(values)), key=lambda i: values[i])
    heights = [0.0] * len(values)
    floor_ = 0.0
    for i in order:
        heights[i] = max(values[i], floor_)
        floor_ = heights[i] + gap
    ceiling = 1.0
    for i in reversed(order):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - gap
    return heights
