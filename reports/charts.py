"""Vega-Lite charts as clean inline SVG: static, themed by the page's CSS, unable to run code."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from math import isfinite
from textwrap import wrap
from typing import Any
from xml.etree import ElementTree as ET  # parses our own charts only  # nosec B405

import altair as alt
import vl_convert
from altair.utils import schemapi
from markupsafe import Markup

VEGA_LITE = "5.20"
"""The renderer's version is pinned: another one would move marks by fractions of a pixel."""
FONT = "Arial"
WIDTH = 840
"""Of a picture on a page, in pixels."""
NARROW = 336
"""Of the same picture drawn anew for a telephone: 390 pixels less the margins of the page."""
LEFT = 210

# Colors of the light page. The stylesheet maps each to a variable of the same name, so that one SVG
# reads in the light and in the dark; the hex values remain where no stylesheet reaches.
COLORS: Mapping[str, str] = {
    "ink": "#1b2430",
    "muted": "#556070",
    "grid": "#e4e8ee",
    "prior": "#7b8696",
    "limit": "#b3261f",
    "surface": "#fffffe",
    "leak": "#a3211b",
    "leak-soft": "#fcefee",
    "warn": "#7d4b00",
    "warn-soft": "#fdf3e0",
    "calm": "#1f5673",
    "calm-soft": "#e9f2f7",
    "quiet-soft": "#eceff3",
    "c1": "#1a62ad",
    "c2": "#b5530b",
    "c3": "#08796a",
    "c4": "#7442c8",
    "c5": "#a32f6a",
    "c6": "#5f6b00",
}
SERIES: Sequence[tuple[str, str]] = (
    ("c1", "circle"),
    ("c2", "diamond"),
    ("c3", "square"),
    ("c4", "triangle-up"),
    ("c5", "cross"),
    ("c6", "triangle-down"),
)

_SVG = "{http://www.w3.org/2000/svg}"
_ELEMENTS = frozenset(("g", "path", "rect", "line", "text"))
_SHAPE = ("transform", "d", "x", "y", "x1", "y1", "x2", "y2", "width", "height")
_PAINT = ("fill", "stroke", "opacity", "fill-opacity", "stroke-opacity")
_STROKE = ("stroke-width", "stroke-dasharray")
_TEXT = ("text-anchor", "font-size", "font-weight")
_ATTRIBUTES = frozenset((*_SHAPE, *_PAINT, *_STROKE, *_TEXT))


@dataclass(frozen=True)
class Key:
    """One entry of a figure's legend."""

    label: str
    shape: str
    color: str


def series(names: Sequence[str]) -> tuple[Key, ...]:
    """A color and a shape for each name, by position; neither carries meaning alone."""
    styles = [SERIES[i % len(SERIES)] for i in range(len(names))]
    return tuple(
        Key(name, shape, color) for name, (color, shape) in zip(names, styles, strict=True)
    )


def color_scale(keys: Sequence[Key]) -> alt.Scale:
    """Scale that gives each key its color."""
    return alt.Scale(domain=[k.label for k in keys], range=[COLORS[k.color] for k in keys])


def shape_scale(keys: Sequence[Key]) -> alt.Scale:
    """Scale that gives each key its shape."""
    return alt.Scale(domain=[k.label for k in keys], range=[k.shape for k in keys])


def over(records: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A chart over inline data.

    The data are JSON text, which altair hands on: a table it would copy at every step of building
    a chart, for a fifth of the time that a page takes.
    """
    table = [{k: _finite(v) for k, v in record.items()} for record in records]
    text = json.dumps(table, allow_nan=False)
    return alt.Chart(alt.InlineData(values=text, format=alt.DataFormat(type="json")))


def both(picture: Callable[[int], Markup]) -> Markup:
    """The picture at both widths; the stylesheet shows the one that the screen has room for.

    Args:
        picture: Draws it at a width in pixels, of `WIDTH` and `NARROW`.
    """
    pair = Markup('<div class="wide">{}</div><div class="narrow">{}</div>')
    return pair.format(picture(WIDTH), picture(NARROW))


def lines(text: str, room: float) -> list[str]:
    """Text broken where a line of it would not fit into `room` pixels at the size of an axis."""
    return wrap(text, max(12, int(room / 6.2))) or [""]


def draw(
    layers: Sequence[alt.Chart],
    *,
    height: int,
    width: int = WIDTH,
    left: int = LEFT,
    right: int = 12,
    bottom: int = 48,
) -> Markup:
    """Render layers, first at the bottom.

    All room is given, none is measured: text would be measured with the fonts of this machine.
    The layers are put together as plain dictionaries: `alt.LayerChart` copies each several times.

    Args:
        layers: Charts without width, height or configuration.
        height: Of the plot, in pixels.
        width: Of the whole picture.
        left: Room for the labels of the y axis.
        right: Room right of the plot for a column of values.
        bottom: Room below it for the x axis.
    """
    debug = schemapi.DEBUG_MODE
    specs = [layer.to_dict(validate=debug) for layer in layers]
    tables = [layer.pop("datasets", {}) for layer in specs]
    kept = ("data", "mark", "encoding", "transform")
    spec = {
        "layer": [{key: layer[key] for key in kept if key in layer} for layer in specs],
        "datasets": {name: table for some in tables for name, table in some.items()},
        "width": width - left - right,
        "height": height,
        "background": "transparent",
        "padding": {"left": left, "top": 8, "right": right, "bottom": bottom},
        "autosize": {"type": "none"},
        "config": _config(),
    }
    return _drawn(json.dumps(spec))


@lru_cache(maxsize=256)
def _drawn(spec: str) -> Markup:
    """The picture of a specification; whoever draws a run again mostly draws the same."""
    return _trim(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))


def _finite(value: Any) -> Any:
    """JSON has no number for nan and infinity; a chart leaves out what has no value."""
    return None if isinstance(value, float) and not isfinite(value) else value


@contextmanager
def unchecked() -> Iterator[None]:
    """Here charts are drawn without altair's checks against its schema: half of a page's time.

    The checks find mistakes of ours, not of the data. Tests draw the charts one by one, with them.
    """
    with schemapi.debug_mode(False):
        yield


@cache
def theme_css() -> str:
    """Rules that let the page's variables override the colors written into the SVG."""
    return "\n".join(
        f'.chart [{attribute}="{color}"]{{{attribute}:var(--{name})}}'
        for name, color in COLORS.items()
        for attribute in ("fill", "stroke")
    )


def _config() -> dict[str, Any]:
    axis = {
        "labelFont": FONT,
        "titleFont": FONT,
        "labelColor": COLORS["muted"],
        "titleColor": COLORS["muted"],
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titlePadding": 10,
        "labelFlush": False,
        "gridColor": COLORS["grid"],
        "tickColor": COLORS["grid"],
        "domainColor": COLORS["grid"],
    }
    return {
        "view": {"stroke": None},
        "axis": axis,
        "axisY": {"labelColor": COLORS["ink"], "ticks": False, "domain": False, "labelPadding": 8},
        "text": {"font": FONT, "fontSize": 12, "color": COLORS["ink"]},
        "legend": {"disable": True},
    }


def _trim(svg: str) -> Markup:
    """Keep shapes and text; drop everything that a static picture does not need.

    A list of what may stay is what makes the page's promise hold whatever the renderer emits.
    """
    root = ET.fromstring(svg)  # our own chart, as the renderer in this process drew it  # nosec B314
    size = (root.get("width", "0"), root.get("height", "0"))
    new = ET.Element("svg", {"viewBox": f"0 0 {size[0]} {size[1]}", "width": size[0]})
    new.set("height", size[1])
    new.set("aria-hidden", "true")
    new.set("focusable", "false")
    new.extend(_visible_shapes(root))
    markup = ET.tostring(new, encoding="unicode")
    return Markup(markup)  # nosec B704


def _visible_shapes(parent: ET.Element) -> Iterator[ET.Element]:
    for child in parent:
        name = child.tag.removeprefix(_SVG)
        is_invisible = child.get("display") == "none" or child.get("opacity") == "0"
        backdrop = child.get("class") == "background" and child.get("stroke") is None
        if name not in _ELEMENTS or is_invisible or backdrop:
            continue
        element = ET.Element(name)
        for key, value in child.attrib.items():
            if key in _ATTRIBUTES and not (key == "opacity" and value == "1"):
                element.set(key, value if key in {"fill", "stroke"} else _round(value))
        element.text = child.text
        element.extend(_visible_shapes(child))
        if name == "g" and len(element) == 0:
            continue
        if name == "g" and not element.attrib and len(element) == 1:
            yield element[0]
        else:
            yield element


def _round(text: str) -> str:
    """Two decimals are enough for the eye, and keep fractions of fractions out of the bytes."""
    return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", text)
