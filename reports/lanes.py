"""Charts in lanes: labeled groups, one line per entry, and no lane that stays empty."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
from markupsafe import Markup

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.charts import COLORS, Key, color_scale, draw, over, shape_scale

LANE = 21
GAP = 15
LONGEST = 30
"""Characters of a label; the table below each figure has the names in full."""
REID_SCALE = "Re-identification ↓ better (%, 0–100)"

Record = Mapping[str, Any]


def place(records: Sequence[Record]) -> tuple[list[Record], list[Record], int]:
    """Give every (group, lane) its height, in order of appearance.

    Returns:
        The records with "y" in pixels from the top; the labels of the groups; the height.
    """
    top = GAP / 2
    heights: dict[tuple[tuple[str, str], str], float] = {}
    labels: list[Record] = []
    for group in dict.fromkeys(map(_group, records)):
        names = dict.fromkeys(r["lane"] for r in records if _group(r) == group)
        for i, lane in enumerate(names):
            heights[group, lane] = top + LANE * (i + 0.5)
        middle = top + LANE * len(names) / 2
        name, under = group
        if under:
            labels.append({"y": middle - 8, "label": short(name), "under": ""})
            labels.append({"y": middle + 8, "label": "", "under": short(under, LONGEST + 4)})
        else:
            labels.append({"y": middle, "label": short(name), "under": ""})
        top += LANE * len(names) + GAP + (8 if under and len(names) == 1 else 0)
    placed: list[Record] = [
        {**record, "y": heights[_group(record), record["lane"]]} for record in records
    ]
    return placed, labels, round(top - GAP / 2)


def short(text: str, longest: int = LONGEST) -> str:
    """Cut a long label, and say so.

    >>> short("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"


def bounds(value: Rate | Estimate | None) -> Record:
    """The part of a record that says where a point and its interval are."""
    fields = ("value", "low", "high")
    return {field: getattr(value, field) if value else None for field in fields}


def _group(record: Record) -> tuple[str, str]:
    return record["group"], record.get("under", "")


def intervals(
    records: Sequence[Record],
    keys: Sequence[Key],
    *,
    x_title: str,
    domain: tuple[float, float],
    axis_format: str,
    rule: float | None = None,
    rule_color: str = "limit",
    note_width: int = 92,
) -> Markup:
    """Points with intervals.

    Args:
        records: Each with "group", "lane", "value", "low", "high", "note"; maybe "prior"; maybe
            "under", a second line of the label of the group.
        keys: Color and shape by lane.
        x_title: Metric with direction, unit and range.
        domain: Of the x axis.
        axis_format: d3 format of its labels.
        rule: Where to draw a vertical line.
        rule_color: Name of its color.
        note_width: Room for the column of notes at the right, in pixels.
    """
    placed, labels, height = place(records)
    x, y = axes(x_title, domain, axis_format, height)
    base = over(placed).encode(y=y, color=alt.Color("lane:N", scale=color_scale(keys)))
    shown = base.transform_filter("isValid(datum.value)")
    layers = [
        shown.mark_rule(strokeWidth=2.5, opacity=0.55).encode(x=x("low"), x2=alt.X2("high:Q")),
        base.transform_filter("isValid(datum.prior)")
        .mark_tick(orient="vertical", thickness=2.5, size=14)
        .encode(x=x("prior"), color=alt.ColorValue(COLORS["prior"])),
        shown.mark_point(filled=True, size=85, opacity=1).encode(
            x=x("value"), shape=alt.Shape("lane:N", scale=shape_scale(keys))
        ),
        *frame(placed, labels, y),
    ]
    if rule is not None:
        layers.insert(0, upright(rule, rule_color, x))
    return draw(layers, height=height, right=note_width)


def ticks(
    records: Sequence[Record],
    notes: Sequence[Record],
    keys: Sequence[Key],
    *,
    x_title: str,
    domain: tuple[float, float],
    rule: float | None,
) -> Markup:
    """One tick per record at "value"; `notes` holds one record per lane, with its "note"."""
    placed, labels, height = place(notes)
    heights = {(_group(record), record["lane"]): record["y"] for record in placed}
    x, y = axes(x_title, domain, ".1f", height)
    data = [{**record, "y": heights[_group(record), record["lane"]]} for record in records]
    layers = [
        over(data)
        .mark_tick(orient="vertical", thickness=1.8, size=15, opacity=0.75)
        .encode(x=x("value"), y=y, color=alt.Color("lane:N", scale=color_scale(keys))),
        *frame(placed, labels, y),
    ]
    if rule is not None:
        layers.append(upright(rule, "limit", x))
    return draw(layers, height=height, right=76)


def axes(
    title: str, domain: tuple[float, float], axis_format: str, height: int
) -> tuple[Callable[[str], alt.X], alt.Y]:
    """The x channel of a field, and the y channel in pixels."""

    def x(field: str) -> alt.X:
        return alt.X(
            f"{field}:Q",
            title=title,
            axis=alt.Axis(format=axis_format, tickCount=6),
            scale=alt.Scale(domain=list(domain), nice=False, zero=False),
        )

    scale = alt.Scale(domain=[height, 0], nice=False, zero=False)
    return x, alt.Y("y:Q", axis=None, scale=scale)


def rate_axis(field: str) -> alt.Y:
    """The y channel of a re-identification rate, or of another share beside it."""
    return alt.Y(
        f"{field}:Q",
        title=REID_SCALE,
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".0%", tickCount=6),
    )


def upright(value: float, color: str, x: Callable[[str], alt.X]) -> alt.Chart:
    """A dashed vertical line."""
    line = over([{"rule": value}]).encode(x=x("rule"))
    drawn: alt.Chart = line.mark_rule(strokeDash=[4, 3], strokeWidth=1.5, color=COLORS[color])
    return drawn


def frame(placed: Sequence[Record], labels: Sequence[Record], y: alt.Y) -> list[alt.Chart]:
    """Labels of the groups at the left, notes of the lanes at the right."""
    left = over(labels).encode(x=alt.XValue(0), y=y)
    return [
        left.mark_text(align="right", dx=-12, fontSize=13).encode(text=alt.Text("label:N")),
        left.mark_text(align="right", dx=-12, fontSize=12, color=COLORS["muted"]).encode(
            text=alt.Text("under:N")
        ),
        over(placed)
        .mark_text(align="left", dx=10, color=COLORS["muted"])
        .encode(x=alt.XValue("width"), y=y, text=alt.Text("note:N")),
    ]
