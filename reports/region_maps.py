"""Maps of a face, side by side: where it came back, and which places make the match."""

from collections.abc import Sequence
from functools import partial

import altair as alt
from markupsafe import Markup

from fedaudit.reports.charts import COLORS, NARROW, both, draw, over
from fedaudit.reports.explanation import BOXES, SIDES, Regions

MAP = 272
"""Side of a map in pixels: 17 a place, because fractions of pixels leave seams."""
RULE = 8 / MAP
"""Gap between two maps, in parts of a map's side."""
TOP = 34 / MAP
"""Room for the titles."""


def region_maps(regions: Regions) -> Markup:
    """Three maps side by side, one under the other where it is narrow; opacity is the value."""
    return both(partial(_draw, regions))


def _draw(regions: Regions, width: int) -> Markup:
    is_narrow = width == NARROW
    maps: list[tuple[str, Sequence[float]]] = [("recovered: local SSIM", regions.recovered)]
    if regions.heat:
        maps.append(("carries the match: Grad-CAM", regions.heat))
        maps.append(("the same in the original", regions.heat_original))
    top = max(regions.heat + regions.heat_original, default=1.0)
    places, titles, frames, lines = [], [], [], []
    for k, (title, values) in enumerate(maps):
        left, above = (0.0, k * (1 + TOP)) if is_narrow else (k * (1 + RULE), 0.0)
        titles.append({"x": left, "y": above - TOP / 2, "title": title})
        frames.append({"x": left, "x2": left + 1, "y": above, "y2": above + 1})
        scale = 1.0 if k == 0 else top
        for i, value in enumerate(values):
            row, column = divmod(i, regions.side)
            places.append(
                {
                    "x": left + column / regions.side,
                    "x2": left + (column + 1) / regions.side,
                    "y": above + row / regions.side,
                    "y2": above + (row + 1) / regions.side,
                    "o": round(max(0.0, min(1.0, value / scale)), 3),
                }
            )
        lines += _outlines(left, above)
    across, down = (1.0, len(maps) * (1 + TOP) - TOP) if is_narrow else (3 + 2 * RULE, 1.0)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, across], nice=False, zero=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[down, -TOP], nice=False, zero=False))
    rect = (
        over(places)
        .mark_rect(color=COLORS["c1"], strokeWidth=0)
        .encode(
            x=x,
            y=y,
            x2=alt.X2("x2:Q"),
            y2=alt.Y2("y2:Q"),
            opacity=alt.Opacity("o:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
        )
    )
    boxes = (
        over([*frames, *lines])
        .mark_rect(filled=False, stroke=COLORS["ink"], strokeWidth=1, strokeOpacity=0.7)
        .encode(x=x, y=y, x2=alt.X2("x2:Q"), y2=alt.Y2("y2:Q"))
    )
    text = (
        over(titles)
        .mark_text(align="left", baseline="middle", fontSize=13)
        .encode(x=x, y=y, text=alt.Text("title:N"))
    )
    height, right = round(MAP * (down + TOP)), width - 4 - MAP if is_narrow else 4
    return draw([rect, boxes, text], height=height, width=width, left=4, right=right)


def _outlines(left: float, above: float) -> list[dict[str, float]]:
    return [
        {"x": left + SIDES[0], "x2": left + SIDES[1], "y": above + top, "y2": above + bottom}
        for top, bottom in BOXES.values()
    ]
