"""Charts in lanes: labeled groups, one line per entry, and no lane that stays empty."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import altair as alt
from markupsafe import Markup

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.charts import (
    COLORS,
    LEFT,
    NARROW,
    Key,
    both,
    color_scale,
    draw,
    lines,
    over,
    shape_scale,
)

LANE = 21
GAP = 15
LONGEST, MOST_ABOVE = 30, 44
"""Characters of a label left of its lanes, and over them; the table below each figure has names in
full."""
REID_SCALE = "Re-identification ↓ better (%, 0–100)"

Record = Mapping[str, Any]


def place(
    records: Sequence[Record], *, above: bool = False
) -> tuple[list[Record], list[Record], int]:
    """Give every (group, lane) its height, in order of appearance.

    Args:
        records: As of `intervals`.
        above: The label of a group stands over its lanes, not left of them.

    Returns:
        The records with "y" in pixels from the top; the labels of the groups; the height.
    """
    top = GAP / 2
    heights: dict[tuple[tuple[str, str], str], float] = {}
    labels: list[Record] = []
    for group in dict.fromkeys(map(_group, records)):
        names = dict.fromkeys(r["lane"] for r in records if _group(r) == group)
        name, under = group
        if above:
            rows = [(name, ""), ("", under)] if under else [(name, "")]
            labels += [
                {"y": top + 8 + 16 * k, "label": short(upper, MOST_ABOVE), "under": lower}
                for k, (upper, lower) in enumerate(rows)
            ]
            top += 16 * len(rows)
        for i, lane in enumerate(names):
            heights[group, lane] = top + LANE * (i + 0.5)
        middle = top + LANE * len(names) / 2
        if under and not above:
            labels.append({"y": middle - 8, "label": short(name), "under": ""})
            labels.append({"y": middle + 8, "label": "", "under": short(under, LONGEST + 4)})
        elif not above:
            labels.append({"y": middle, "label": short(name), "under": ""})
        extra = 8 if under and len(names) == 1 and not above else 0
        top += LANE * len(names) + GAP + extra
    entries: list[Record] = [
        {**record, "y": heights[_group(record), record["lane"]]} for record in records
    ]
    return entries, labels, round(top - GAP / 2)


def short(text: str, longest: int = LONGEST) -> str:
    """Cut a long label, and say so.

    >>> short("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"


def bounds(value: Rate | Estimate | None) -> Record:
    """The part of a record that says where a point and its interval are; one value has none."""
    fields = ("value", "low", "high")
    if isinstance(value, Estimate) and not value.has_interval:
        return dict.fromkeys(fields, value.value)
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
    panel = partial(_intervals, records, keys, x_title, domain, axis_format)
    return both(partial(panel, (rule, rule_color), note_width))


def _intervals(
    records: Sequence[Record],
    keys: Sequence[Key],
    x_title: str,
    domain: tuple[float, float],
    axis_format: str,
    rule: tuple[float | None, str],
    note_width: int,
    width: int,
) -> Markup:
    left = _left(width)
    points, labels, height = place(records, above=width == NARROW)
    title = lines(x_title, width - left - note_width + 40)
    x, y = axes(title, domain, axis_format, height)
    base = over(points).encode(y=y, color=alt.Color("lane:N", scale=color_scale(keys)))
    valid = base.transform_filter("isValid(datum.value)")
    layers = [
        valid.mark_rule(strokeWidth=2.5, opacity=0.55).encode(x=x("low"), x2=alt.X2("high:Q")),
        base.transform_filter("isValid(datum.prior)")
        .mark_tick(orient="vertical", thickness=2.5, size=14)
        .encode(x=x("prior"), color=alt.ColorValue(COLORS["prior"])),
        valid.mark_point(filled=True, size=85, opacity=1).encode(
            x=x("value"), shape=alt.Shape("lane:N", scale=shape_scale(keys))
        ),
        *frame(points, labels, y, left),
    ]
    if rule[0] is not None:
        layers.insert(0, upright(rule[0], rule[1], x))
    bottom = 34 + 14 * len(title)
    return draw(layers, height=height, width=width, left=left, right=note_width, bottom=bottom)


def _left(width: int) -> int:
    """Room for labels left of the lanes; where it is narrow they stand over them."""
    return 10 if width == NARROW else LEFT


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
    return both(partial(_ticks, records, notes, keys, x_title, domain, rule))


def _ticks(
    records: Sequence[Record],
    notes: Sequence[Record],
    keys: Sequence[Key],
    x_title: str,
    domain: tuple[float, float],
    rule: float | None,
    width: int,
) -> Markup:
    left = _left(width)
    points, labels, height = place(notes, above=width == NARROW)
    heights = {(_group(record), record["lane"]): record["y"] for record in points}
    title = lines(x_title, width - left - 76 + 40)
    x, y = axes(title, domain, ".1f", height)
    data = [{**record, "y": heights[_group(record), record["lane"]]} for record in records]
    layers = [
        over(data)
        .mark_tick(orient="vertical", thickness=1.8, size=15, opacity=0.75)
        .encode(x=x("value"), y=y, color=alt.Color("lane:N", scale=color_scale(keys))),
        *frame(points, labels, y, left),
    ]
    if rule is not None:
        layers.append(upright(rule, "limit", x))
    bottom = 34 + 14 * len(title)
    return draw(layers, height=height, width=width, left=left, right=76, bottom=bottom)


def axes(
    title: list[str], domain: tuple[float, float], axis_format: str, height: int
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
    rule: alt.Chart = line.mark_rule(strokeDash=[4, 3], strokeWidth=1.5, color=COLORS[color])
    return rule


def frame(
    placed: Sequence[Record], labels: Sequence[Record], y: alt.Y, left: int
) -> list[alt.Chart]:
    """Labels of the groups left of the lanes or over them, notes of the lanes at the right."""
    names = over(labels).encode(x=alt.XValue(0), y=y)
    align, dx = ("right", -12) if left == LEFT else ("left", -left)
    return [
        names.mark_text(align=align, dx=dx, fontSize=13).encode(text=alt.Text("label:N")),
        names.mark_text(align=align, dx=dx, fontSize=12, color=COLORS["muted"]).encode(
            text=alt.Text("under:N")
        ),
        over(placed)
        .mark_text(align="left", dx=10, color=COLORS["muted"])
        .encode(x=alt.XValue("width"), y=y, text=alt.Text("note:N")),
    ]
