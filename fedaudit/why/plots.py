"""The figures of the page: each a question, a picture, and the numbers in it as a table."""

from collections.abc import Sequence
from typing import Any

import altair as alt
from markupsafe import Markup

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.charts import COLORS, Key, draw, over
from fedaudit.reports.figures import Figure, Panel, Table, state
from fedaudit.reports.lanes import intervals
from fedaudit.reports.text import ABSENT, NBSP, estimate_range, number, percent, rate_range, signed
from fedaudit.why.explanation_results import Leakage, Regions, Round, Why

ALONE = Key("this layer alone", "circle", "c1")
WITHOUT = Key("all but this layer", "diamond", "c2")
WHOLE = Key("the whole update", "square", "c3")
LEAK = Key("leakage (SSIM)", "circle", "c1")
WORTH = Key("accuracy (share of pairs)", "square", "c3")
SHARE = Key("Shapley value", "circle", "c1")
TOGETHER = Key("from the sum of everybody", "square", "c3")
SINGLE = Key("alone", "diamond", "c2")
PRIOR = Key("prior only", "tick", "prior")

SSIM = "SSIM ↓ better (no unit, −1–1)"
MAP = 272
"""Side of a map in pixels: 17 a place, because fractions of pixels leave seams."""
RULE = 8 / MAP
"""Gap between two maps, in parts of a map's side."""
TOP = 34 / MAP
"""Room for the titles."""


def shown(value: Estimate | None, digits: int = 2) -> str:
    """A mean with its interval, in one line."""
    if value is None:
        return ABSENT
    return f"{_whole(f'{number(value.value, digits)} {estimate_range(value, digits)}')} n={value.n}"


def _whole(text: str) -> str:
    """Without a place to break the line."""
    return text.replace(" ", NBSP)


def layers(why: Why) -> Figure | None:
    """Which layer holds the faces."""
    if why.layers is None:
        return None
    records: list[dict[str, Any]] = [_lane("everything", WHOLE.label, why.layers.all)]
    for layer in why.layers.layers:
        records.append(_lane(layer.name, ALONE.label, layer.alone))
        if layer.without:
            records.append(_lane(layer.name, WITHOUT.label, layer.without))
    svg = intervals(
        records,
        (WHOLE, ALONE, WITHOUT),
        x_title=SSIM,
        domain=(-0.2, 1.0),
        axis_format=".1f",
        note_width=108,
    )
    rows = [("everything", ABSENT, "all", *_leak_cells(why.layers.all), ABSENT)]
    for layer in why.layers.layers:
        size = f"{layer.values:,}"
        rows.append((layer.name, size, "alone", *_leak_cells(layer.alone), ABSENT))
        rows.append((layer.name, size, "left out", *_leak_cells(layer.without), shown(layer.lost)))
    return Figure(
        id="layers",
        title="Leakage by layer",
        reading=(
            "Circle: the attacker sees the update of this layer and nothing else. Diamond: it sees "
            "all but this layer. Gray tick: the same attack on noise in place of what it sees "
            "(prior only). Bars: 95 % intervals over targets. The labels are known throughout. A "
            "layer whose circle is far right leaks by itself; where its diamond is as far right as "
            "the whole update's, the other layers say the same, and withholding it helps nobody."
        ),
        panels=(Panel("", "SSIM of reconstructions from each layer alone and left out", svg),),
        keys=(WHOLE, ALONE, WITHOUT, PRIOR),
        table=Table(
            ("Layer", "Numbers", "Attacker sees it", *_LEAK_COLUMNS, "Lost without it ↑ (SSIM)"),
            tuple(rows),
        ),
    )


def rounds(why: Why) -> Figure | None:
    """How leakage moves as the network learns."""
    if why.rounds is None:
        return None
    records: list[dict[str, Any]] = []
    for row in why.rounds:
        group = _round_name(row)
        records.append({**_lane(group, LEAK.label, row.leakage), "under": _trained(row.round)})
        records.append(
            {
                "group": group,
                "under": _trained(row.round),
                "lane": WORTH.label,
                "value": row.accuracy,
                "low": row.accuracy,
                "high": row.accuracy,
                "prior": None,
                "note": ABSENT if row.accuracy is None else f"accuracy {percent(row.accuracy)}",
            }
        )
    svg = intervals(
        records,
        (LEAK, WORTH),
        x_title="SSIM ↓ better (−1–1), and verification accuracy ↑ better (0–1; 0.5 is chance)",
        domain=(-0.2, 1.0),
        axis_format=".1f",
        rule=0.5,
        rule_color="prior",
        note_width=116,
    )
    return Figure(
        id="rounds",
        title="Leakage by round",
        reading=(
            "The same clients and photos, attacked in another round each time. Circle: SSIM of the "
            "reconstructions. Square: what the network is worth by then, as verification accuracy "
            "on people who never train (dashed: 0.5, chance). Gray tick: prior only. Bars: 95 % "
            "intervals over targets; the accuracy is one measurement."
        ),
        panels=(Panel("", "SSIM and verification accuracy by round", svg),),
        keys=(LEAK, WORTH, PRIOR, Key("accuracy by chance", "dash", "prior")),
        table=Table(
            ("Round", "Model", *_LEAK_COLUMNS, "Verification accuracy ↑ (%, 50 is chance)"),
            tuple(
                (str(r.round), state(r.round), *_leak_cells(r.leakage), percent(r.accuracy))
                for r in why.rounds
            ),
        ),
    )


def regions(why: Why) -> Figure | None:
    """Which regions came back, and which carry the match."""
    found = why.regions
    if found is None:
        return None
    columns = (
        "Region",
        "Area (%, 0–100)",
        "Recovered ↓ (local SSIM, −1–1)",
        "Prior only ↓ (local SSIM)",
        "Heat of the match (%, 0–100)",
        "Heat in the original (%, 0–100)",
        "Cosine lost when painted over (−2–2)",
    )
    rows = tuple(
        (
            r.name,
            percent(r.area),
            shown(r.recovered),
            shown(r.prior),
            _percent(r.heat),
            _percent(r.heat_original),
            ABSENT
            if r.drop is None
            else _whole(f"{signed(r.drop.value)} {estimate_range(r.drop)}"),
        )
        for r in found.regions
    )
    label = "Maps of local SSIM and of Grad-CAM heat over the picture; " + "; ".join(
        f"{r.name}: SSIM {number(r.recovered.value)}"
        + (f", {percent(r.heat.value)} of the heat" if r.heat else "")
        for r in found.regions
    )
    why_not = "" if found.heat else " Identity was not tested, so there is no heat to show."
    return Figure(
        id="regions",
        title="Which regions come back",
        reading=(
            "Means over targets, so that no face can be seen. Left: where reconstructions look "
            "like the originals (local SSIM). Middle: Grad-CAM of the independent embedder’s "
            "match, which places of the reconstruction make it the person; right, the same in the "
            "original photos. Darker is more. Lines: eyes, nose and mouth of an aligned face; "
            "outline is the rest." + why_not
        ),
        panels=(Panel("", label, _maps(found)),),
        keys=(),
        table=Table(columns, rows),
    )


def artifacts(why: Why) -> Figure | None:
    """What each shared thing adds."""
    game = why.artifacts
    if game is None:
        return None
    low = min(0.0, *(p.ssim.low for p in game.players))
    high = max(0.1, *(p.ssim.high for p in game.players))
    svg = intervals(
        [_value(p.name, SHARE.label, p.ssim) for p in game.players],
        (SHARE,),
        x_title="Shapley value ↓ better (SSIM that it adds, mean over all orders)",
        domain=(max(-1.0, low - 0.05), min(1.0, high + 0.05)),
        axis_format=".1f",
        rule=0.0,
        rule_color="prior",
        note_width=116,
    )
    return Figure(
        id="artifacts",
        title="What each shared thing adds",
        reading=(
            f"Shapley values ({game.method}): what a thing adds to SSIM, averaged over all orders "
            "in which the attacker could get hold of the things. They add up from "
            f"{number(game.nobody.value)} (nothing shared: the prior) to "
            f"{number(game.everybody.value)} (everything). Bars: 95 % intervals over targets. A "
            "thing can add much although others could replace it; the figure by layer shows that."
            + (
                f" In {game.unread} coalitions no attack could read what was shown; they count as "
                "the prior."
                if game.unread
                else ""
            )
        ),
        panels=(Panel("", "Shapley value of each shared thing", svg),),
        keys=(SHARE,),
        table=Table(
            (
                "Shared or known",
                "Alone ↓ (SSIM)",
                "Shapley value ↓ (SSIM)",
                "Shapley value ↓ (identity cosine)",
            ),
            tuple((p.name, shown(p.alone), shown(p.ssim), shown(p.identity)) for p in game.players),
        ),
    )


def clients(why: Why) -> Figure | None:
    """Which clients lose by being together."""
    game = why.clients
    if game is None:
        return None
    records = []
    for p in game.players:
        records.append(_value(p.name, SINGLE.label, p.alone))
        records.append(_value(p.name, SHARE.label, p.ssim))
        if p.together:
            records.append(_value(p.name, TOGETHER.label, p.together))
    low = min(0.0, *(r["low"] for r in records))
    high = max(0.1, *(r["high"] for r in records))
    svg = intervals(
        records,
        (SINGLE, SHARE, TOGETHER),
        x_title="Leakage ↓ better (SSIM above prior only, summed over a client’s images)",
        domain=(low - 0.05, high + 0.05),
        axis_format=".1f",
        rule=0.0,
        rule_color="prior",
        note_width=116,
    )
    return Figure(
        id="clients",
        title="Which clients lose by being together",
        reading=(
            f"Clients whose updates are added up before the server sees them ({game.method}). "
            "Diamond: what a client’s own update gives away. Circle: what the client adds to the "
            "leakage of a sum, averaged over orders of joining. Square: what the sum of everybody "
            "gives away of its photos. A square left of the diamond: the sum hides the client; "
            "right of it: the client loses by being together. Bars: 95 % intervals over orders and "
            "photos."
        ),
        panels=(
            Panel("", "Leakage of each client, alone, as its share of sums, and together", svg),
        ),
        keys=(SINGLE, SHARE, TOGETHER),
        table=Table(
            (
                "Client",
                "Alone ↓ (SSIM above prior)",
                "Shapley value ↓ (SSIM above prior)",
                "Shapley value ↓ (faces re-identified)",
                "Together ↓ (SSIM above prior)",
                "Hidden by the sum ↑ (alone − together)",
            ),
            tuple(
                (
                    p.name,
                    shown(p.alone),
                    shown(p.ssim),
                    shown(p.identity),
                    shown(p.together),
                    shown(p.hidden),
                )
                for p in game.players
            ),
        ),
    )


_LEAK_COLUMNS = (
    "SSIM ↓ (−1–1) [95 % CI]",
    "Prior only ↓ (SSIM)",
    "Excess ↓ (SSIM)",
    "Identity cosine ↓ (−1–1)",
    "Re-identified ↓ (%, 0–100)",
    "Rank-1 ↓ (%, 0–100)",
)


def _leak_cells(leak: Leakage | None) -> tuple[str, ...]:
    if leak is None:
        return ("— not tested", *[ABSENT] * 5)
    return (
        shown(leak.ssim),
        shown(leak.prior),
        shown(leak.excess),
        shown(leak.cosine),
        _rate(leak.reid),
        _rate(leak.rank1),
    )


def _rate(value: Rate | None) -> str:
    if value is None:
        return ABSENT
    hits = f"{value.hits} of {value.n}"
    return f"{_whole(f'{percent(value.value)} {rate_range(value)}')} {_whole(hits)}"


def _percent(value: Estimate | None) -> str:
    if value is None:
        return ABSENT
    low, high = (percent(max(0.0, end), unit=False) for end in (value.low, value.high))
    return _whole(f"{percent(value.value)} [{low}, {high}]")


def _lane(group: str, lane: str, leak: Leakage | None) -> dict[str, Any]:
    ssim = leak.ssim if leak else None
    record = _value(group, lane, ssim)
    return {**record, "prior": leak.prior.value if leak else None}


def _value(group: str, lane: str, value: Estimate | None) -> dict[str, Any]:
    return {
        "group": group,
        "lane": lane,
        "value": value.value if value else None,
        "low": value.low if value else None,
        "high": value.high if value else None,
        "prior": None,
        "note": f"{number(value.value)} {estimate_range(value)}" if value else "— not tested",
    }


def _round_name(row: Round) -> str:
    return f"round {row.round}"


def _trained(number_: int) -> str:
    if number_ == 1:
        return "fresh network"
    return f"trained for {number_ - 1} round{'s' if number_ > 2 else ''}"


def _maps(found: Regions) -> Markup:
    """Three maps side by side; opacity is the value."""
    maps: list[tuple[str, Sequence[float]]] = [("recovered: local SSIM", found.recovered)]
    if found.heat:
        maps.append(("carries the match: Grad-CAM", found.heat))
        maps.append(("the same in the original", found.heat_original))
    top = max(found.heat + found.heat_original, default=1.0)
    places, titles, lines = [], [], []
    for k, (title, values) in enumerate(maps):
        left = k * (1 + RULE)
        titles.append({"x": left, "y": -TOP / 2, "title": title})
        scale = 1.0 if k == 0 else top
        for i, value in enumerate(values):
            row, column = divmod(i, found.side)
            places.append(
                {
                    "x": left + column / found.side,
                    "x2": left + (column + 1) / found.side,
                    "y": row / found.side,
                    "y2": (row + 1) / found.side,
                    "o": round(max(0.0, min(1.0, value / scale)), 3),
                }
            )
        lines += _outlines(left)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, 3 + 2 * RULE], nice=False, zero=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[1, -TOP], nice=False, zero=False))
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
    frames = [
        {"x": k * (1 + RULE), "x2": k * (1 + RULE) + 1, "y": 0, "y2": 1} for k in range(len(maps))
    ]
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
    return draw([rect, boxes, text], height=MAP + 34, left=4, right=4)


def _outlines(left: float) -> list[dict[str, float]]:
    from fedaudit.why.regions import BOXES, SIDES  # noqa: PLC0415 - imports torch

    return [
        {"x": left + SIDES[0], "x2": left + SIDES[1], "y": top, "y2": bottom}
        for top, bottom in BOXES.values()
    ]
