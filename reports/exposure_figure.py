"""The exposure map as a picture: things that were sent down the side, attacks along the top."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import altair as alt
from markupsafe import Markup

from fedaudit.reports.charts import COLORS, NARROW, Key, both, draw, over
from fedaudit.reports.comparison import Exposure, VerdictKind
from fedaudit.reports.figures import Figure, Panel, Table, unique
from fedaudit.reports.lanes import short
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, percent

LEFT, RIGHT = 344, 4
HEAD, GAP, ROW, ABOVE = 26, 12, 46, 36
"""Heights in pixels; `ABOVE` is that of the labels of a row where they stand over it."""
MOST_COLUMNS = 3
"""Attacks side by side in one panel; more go to a second one below."""
TONES: Mapping[VerdictKind, str] = {
    "LEAK DEMONSTRATED": "leak",
    "TRACE OF IDENTITY": "leak",
    "INVALID": "warn",
    "INCONCLUSIVE": "warn",
    "NO LEAK FOUND ABOVE LIMIT": "calm",
}
SHAPES: Mapping[VerdictKind, str] = {
    "LEAK DEMONSTRATED": "diamond",
    "TRACE OF IDENTITY": "M0,-1L1,0L0,1L-1,0ZM0,-.5L-.5,0L0,.5L.5,0Z",
    "INVALID": "M-1,-.7L-.7,-1L0,-.3L.7,-1L1,-.7L.3,0L1,.7L.7,1L0,.3L-.7,1L-1,.7L-.3,0Z",
    "INCONCLUSIVE": "M0,-1A1,1,0,0,0,0,1ZM0,-1A1,1,0,0,1,0,1L0,.7A.7,.7,0,0,0,0,-.7Z",
    "NO LEAK FOUND ABOVE LIMIT": "M0,-1A1,1,0,1,0,0,1A1,1,0,1,0,0,-1ZM0,-.6A.6,.6,0,1,1,0,.6"
    "A.6,.6,0,1,1,0,-.6Z",
}
"""The shapes of the verdict badges: color is not the only carrier."""

Record = dict[str, Any]


def exposure_map(results: Results) -> Figure:
    """What gives the face away: artifact × attack × re-identification."""
    attacks = unique([e.attack for e in results.exposures if e.attack])
    starts = range(0, max(1, len(attacks)), MOST_COLUMNS)
    parts = [attacks[k : k + MOST_COLUMNS] for k in starts]
    panels = []
    joint = any(e.reid and len(e.together) > 1 for e in results.exposures)
    for number_, part in enumerate(parts, 1):
        names = ", ".join(map(attack_name, part))
        title = f"Attacks {number_} of {len(parts)}: {names}" if len(parts) > 1 else ""
        label = f"Re-identification by what was sent and by attack: {names or 'none'}"
        panels.append(Panel(title, label, both(partial(_panel, results.exposures, part))))
    return Figure(
        id="exposure",
        title="",
        reading="“+” marks a result of several things together." if joint else "",
        panels=tuple(panels) if results.exposures else (),
        keys=_keys(results),
        table=Table((), ()),  # the section has one with verdicts and notes
    )


def _keys(results: Results) -> tuple[Key, ...]:
    limit = percent(results.settings.reid_limit)
    names: Mapping[VerdictKind, Key] = {
        "LEAK DEMONSTRATED": Key("leak demonstrated", "diamond", "leak"),
        "TRACE OF IDENTITY": Key("trace of identity", "diamond-ring", "leak"),
        "INVALID": Key("invalid", "x", "warn"),
        "INCONCLUSIVE": Key("inconclusive", "half", "warn"),
        "NO LEAK FOUND ABOVE LIMIT": Key(f"no leak found above {limit}", "ring", "calm"),
    }
    kinds = {e.verdict for e in results.exposures}
    has_rates = any(e.reid for e in results.exposures)
    cells = [e for e in results.exposures if e.attack]
    attacks = {e.attack for e in cells}
    things = {(e.scenario, e.defense, e.artifact) for e in cells}
    others = (
        (has_rates, Key("prior only", "tick", "prior")),
        (any(e.reid is None for e in cells), Key(f"{ABSENT} not tested", "frame", "prior")),
        (len(cells) < len(results.exposures), Key("not attacked", "hatch", "prior")),
        (
            len(cells) < len(attacks) * len(things),
            Key("gray: the attack does not read it", "square", "empty"),
        ),
    )
    return (
        *(key for kind, key in names.items() if kind in kinds),
        *(key for condition, key in others if condition),
    )


def _panel(exposures: Sequence[Exposure], attacks: Sequence[str], full: int) -> Markup:
    small = full == NARROW
    left, above = (0, ABOVE) if small else (LEFT, 0)
    width = full - left - RIGHT
    column = width / max(1, len(attacks))
    things: dict[tuple[str, str, str], list[Exposure]] = {}
    for e in exposures:
        things.setdefault((e.scenario, e.defense, e.artifact), []).append(e)
    names: list[Record] = [
        {
            "x": column * (k + 0.5),
            "y": HEAD - 12.0,
            "label": short(attack_name(name), round(column / 6.6)),
        }
        for k, name in enumerate(attacks)
    ]
    groups: list[Record] = []
    labels: list[Record] = []
    cells: list[Record] = []
    bands: list[Record] = []
    top = float(HEAD)
    before: Exposure | None = None
    for cells_here in things.values():
        first = cells_here[0]
        top += GAP if before is None or before.scenario != first.scenario else 0
        groups.append({"y": top, **_heading(first, before)})
        artifact, summary = short(_thing(first.artifact), 22), short(_rounded(first.summary), 27)
        labels.append({"y": top, "label": artifact, "under": summary})
        by_attack = {e.attack: e for e in cells_here}
        top += above
        if None in by_attack:
            why = short(by_attack[None].note, round((width - 60) / 5.6))
            bands.append({"x": 2.0, "x2": width - 2.0, "y": top, "label": why})
        else:
            for k, attack in enumerate(attacks):
                cells.append(_cell(by_attack.get(attack), k * column, column, top))
        top += ROW
        before = first
    return _draw(names, groups, labels, cells, bands, left=left, width=width, height=round(top) + 4)


def _thing(artifact: str) -> str:
    """What was sent, in words.

    >>> _thing("cluster_centers")
    'cluster centers'
    """
    return artifact.replace("_", " ")


def _rounded(summary: str) -> str:
    """How much was sent, from a million on as those: "11,180,616 values" would be cut off.

    >>> _rounded("62 tensors, 11,180,616 values"), _rounded("12 tensors, 567,264 values")
    ('62 tensors, 11.2 M values', '12 tensors, 567,264 values')
    """
    in_millions = re.compile(r"\d{1,3}(,\d{3}){2,}")
    return in_millions.sub(lambda n: f"{int(n[0].replace(',', '')) / 1e6:,.1f} M", summary)


def _heading(e: Exposure, before: Exposure | None) -> Record:
    """Scenario, method and model state at its first line; below, the defense where it changes."""
    defense = "" if e.defense == "none" else defense_name(e.defense)
    if before is None or before.scenario != e.scenario:
        kind = "fresh model" if e.round == 1 else f"round {e.round}"
        kind = e.model_state or kind
        method = "" if e.method == e.scenario else e.method
        under = " · ".join(part for part in (method, kind, defense) if part)
        return {"label": short(e.scenario, 26), "under": short(under, 34)}
    is_new = before.defense != e.defense
    return {"label": "", "middle": short(defense or "undefended", 36) if is_new else ""}


def _cell(e: Exposure | None, left: float, column: float, top: float) -> Record:
    place = {"x": left + 2, "x2": left + column - 2, "y": top + 2, "y2": top + ROW - 2}
    if e is None:
        return {**place, "kind": "empty"}
    if e.measurement is None or e.reid is None:
        beside = e.verdict == "NOT TESTED" and len(e.together) > 1
        return {**place, "kind": "untested", "label": "used beside" if beside else ABSENT}
    span = column - 24
    m = e.measurement
    people = " people" if m.of == "people" and m.n_people == e.reid.n and column > 150 else ""
    return {
        **place,
        "kind": e.verdict,
        "label": percent(e.reid.value),
        "note": f"{e.reid.hits} of {e.reid.n}{people}" + (" +" if len(e.together) > 1 else ""),
        "from": left + 12,
        "to": left + 12 + span * e.reid.value,
        "end": left + 12 + span,
        "prior": left + 12 + span * m.prior.value if m.prior else None,
    }


def _draw(
    names: list[Record],
    groups: list[Record],
    labels: list[Record],
    cells: list[Record],
    bands: list[Record],
    *,
    left: int,
    width: float,
    height: int,
) -> Markup:
    """Labels stand left of the cells, or where there is no room at the left, over them."""
    small = not left

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False))

    def y(field: str = "y") -> alt.Y:
        return alt.Y(f"{field}:Q", axis=None, scale=alt.Scale(domain=[height, 0], nice=False))

    def words(records: list[Record], field: str = "label", **style: Any) -> alt.Chart:
        chart: alt.Chart = (
            over(records).mark_text(**style).encode(x=x("x"), y=y(), text=alt.Text(field))
        )
        return chart

    quiet = {"fontSize": 11, "color": COLORS["muted"]}
    edge, inner = (2.0, width - 2.0) if small else (6.0 - left, -10.0)
    up = 8 if small else 0
    layers: list[alt.Chart] = [words(names, "label:N", fontWeight="bold")]
    for records, at, align, weight in (
        (groups, edge, "left", "bold"),
        (labels, inner, "right", "normal"),
    ):
        upper = [{**r, "x": at, "y": r["y"] + 17 - up} for r in records]
        middle = [
            {"label": "", **r, "x": at, "y": r["y"] + 24 - up} for r in records if "middle" in r
        ]
        layers += [words(middle, "middle:N", align=align, **quiet)] if middle else []
        lower = [{"under": "", **r, "x": at, "y": r["y"] + 33 - up} for r in records]
        if small:
            lower = [{**r, "under": short(r["under"], 27)} for r in lower]
        layers.append(words(upper, "label:N", align=align, fontWeight=weight))
        layers.append(words(lower, "under:N", align=align, **quiet))
    for kind in dict.fromkeys(str(c["kind"]) for c in cells):
        layers += _of_kind(kind, [c for c in cells if c["kind"] == kind], x, y, words)
    if bands:
        lines = [line for band in bands for line in _hatching(band)]
        layers.append(
            over(lines)
            .mark_rule(color=COLORS["grid"], strokeWidth=1.5)
            .encode(x=x("x"), x2=alt.X2("x2:Q"), y=y(), y2=alt.Y2("y2:Q"))
        )
        centers = [{**b, "x": width / 2, "y": b["y"] + ROW / 2} for b in bands]
        plates = [{**c, **_plate(c)} for c in centers]
        layers.append(
            over(plates)
            .mark_rect(color=COLORS["surface"])
            .encode(x=x("x"), x2=alt.X2("x2:Q"), y=y(), y2=alt.Y2("y2:Q"))
        )
        layers.append(words(centers, "label:N", **quiet))
    full = round(width + left + RIGHT)
    return draw(layers, height=height, width=full, left=left, right=RIGHT, bottom=4)


def _of_kind(kind: str, cells: list[Record], x: Any, y: Any, words: Any) -> list[alt.Chart]:
    box = over(cells).encode(x=x("x"), x2=alt.X2("x2:Q"), y=y(), y2=alt.Y2("y2:Q"))
    middle = [{**c, "x": (c["x"] + c["x2"]) / 2, "y": (c["y"] + c["y2"]) / 2} for c in cells]
    if kind == "empty":
        return [box.mark_rect(color=COLORS["quiet-soft"], opacity=0.6)]
    if kind == "untested":
        frame = box.mark_rect(fillOpacity=0, stroke=COLORS["prior"], strokeDash=[3, 3])
        return [frame, words(middle, "label:N", color=COLORS["muted"])]
    tone = TONES[kind]  # type: ignore[index]
    ink = COLORS[tone]
    high = [{**c, "x": c["from"], "y": c["y"] + 15} for c in cells]
    low = [{**c, "y": c["y"] + 33} for c in cells]
    track = over(low).encode(x=x("from"), y=y())
    prior = [c for c in low if c["prior"] is not None]
    return [
        box.mark_rect(color=COLORS[f"{tone}-soft"]),
        over(high)
        .mark_point(shape=SHAPES[kind], filled=True, color=ink, size=70, opacity=1, xOffset=5)  # type: ignore[index]
        .encode(x=x("x"), y=y()),
        words(high, "label:N", align="left", dx=16, fontSize=14, fontWeight="bold", color=ink),
        words([{**c, "x": c["end"]} for c in high], "note:N", align="right", color=COLORS["muted"]),
        track.mark_rule(color=COLORS["prior"], strokeWidth=1, opacity=0.5).encode(
            x2=alt.X2("end:Q")
        ),
        track.mark_rule(color=ink, strokeWidth=5).encode(x2=alt.X2("to:Q")),
        over(prior)
        .mark_tick(orient="vertical", thickness=2.5, size=13, color=COLORS["prior"])
        .encode(x=x("prior"), y=y()),
    ]


def _plate(text: Record) -> Record:
    """A ground for the words, wide enough for any font."""
    half = 3.1 * len(text["label"]) + 8
    return {"x": text["x"] - half, "x2": text["x"] + half, "y": text["y"] - 9, "y2": text["y"] + 9}


def _hatching(band: Record) -> list[Record]:
    """Diagonals across the band."""
    top, bottom = band["y"] + 4, band["y"] + ROW - 4
    step, lean = 14, bottom - top
    count = int((band["x2"] - band["x"] - lean) // step) + 1
    starts = (band["x"] + step * k for k in range(count))
    return [{"x": s, "x2": s + lean, "y": bottom, "y2": top} for s in starts]
