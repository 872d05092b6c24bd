"""The figures of an explanation: each a question, a picture, and the numbers in it as a table."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.charts import Key
from fedaudit.reports.explanation import (
    Explanation,
    Game,
    Layers,
    Leakage,
    Part,
    Player,
    Region,
    Regions,
    Round,
)
from fedaudit.reports.figures import Columns, Figure, Panel, Table, state, table
from fedaudit.reports.lanes import bounds, intervals
from fedaudit.reports.region_maps import region_maps
from fedaudit.reports.text import ABSENT, NBSP, estimate_range, number, percent, rate_range, signed

ALONE = Key("this layer alone", "circle", "c1")
WITHOUT = Key("all but this layer", "diamond", "c2")
WHOLE = Key("the whole update", "square", "c3")
LEAK = Key("leakage (SSIM)", "circle", "c1")
WORTH = Key("accuracy (share of pairs)", "square", "c3")
SHARE = Key("Shapley value", "circle", "c1")
TOGETHER = Key("from the sum of everybody", "square", "c3")
SINGLE = Key("alone", "diamond", "c2")
PRIOR = Key("prior only", "tick", "prior")

NOTES = 136
"""Room for "−0.04 [−0.06, −0.14]" beside a lane, in pixels."""
SSIM = "SSIM ↓ better (no unit, −1–1)"


def _cell(value: Estimate | None) -> str:
    """A mean with its interval, in one line."""
    if value is None:
        return ABSENT
    return f"{_whole(f'{number(value.value)} {estimate_range(value)}')} n={value.n}"


def _whole(text: str) -> str:
    """Without a place to break the line."""
    return text.replace(" ", NBSP)


def figures(explanation: Explanation) -> dict[Part, Figure | None]:
    """One a part; None where it was not tested."""
    draw: dict[Part, Callable[[Any], Figure]] = {
        "layers": _layers,
        "rounds": _rounds,
        "regions": _regions,
        "artifacts": _artifacts,
        "clients": _clients,
    }
    parts = {name: getattr(explanation, name) for name in draw}
    return {name: None if parts[name] is None else draw[name](parts[name]) for name in draw}


def _layers(layers: Layers) -> Figure:
    """Which layer holds the faces."""
    records: list[dict[str, Any]] = [_lane("everything", WHOLE.label, layers.all)]
    for layer in layers.layers:
        records.append(_lane(layer.name, ALONE.label, layer.alone))
        if layer.without:
            records.append(_lane(layer.name, WITHOUT.label, layer.without))
    svg = intervals(
        records,
        (WHOLE, ALONE, WITHOUT),
        x_title=SSIM,
        domain=(_lowest(records), 1.0),
        axis_format=".1f",
        note_width=NOTES,
    )
    rows = [("everything", ABSENT, "all", *_leak_cells(layers.all), ABSENT)]
    for layer in layers.layers:
        size = f"{layer.values:,}"
        rows.append((layer.name, size, "alone", *_leak_cells(layer.alone), ABSENT))
        rows.append((layer.name, size, "left out", *_leak_cells(layer.without), _cell(layer.lost)))
    return Figure(
        id="layers",
        title="Leakage by layer",
        reading=(
            "Circle: the attacker sees the update of this layer and nothing else. Diamond: it sees "
            "all but this layer. Gray tick: the same attack on the same of an invented person "
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


def _rounds(rounds: tuple[Round, ...]) -> Figure:
    """How leakage moves as the network learns."""
    records: list[dict[str, Any]] = []
    for row in rounds:
        group = f"round {row.round}"
        records.append({**_lane(group, LEAK.label, row.leakage), "under": _state(row.round)})
        records.append(
            {
                **dict.fromkeys(("value", "low", "high"), row.accuracy),
                "group": group,
                "under": _state(row.round),
                "lane": WORTH.label,
                "prior": None,
                "note": ABSENT if row.accuracy is None else f"accuracy {percent(row.accuracy)}",
            }
        )
    svg = intervals(
        records,
        (LEAK, WORTH),
        x_title="SSIM ↓ better (−1–1), and verification accuracy ↑ better (0–1; 0.5 is chance)",
        domain=(_lowest(records), 1.0),
        axis_format=".1f",
        rule=0.5,
        rule_color="prior",
        note_width=NOTES,
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
                for r in rounds
            ),
        ),
    )


def _regions(regions: Regions) -> Figure:
    """Which regions came back, and which carry the match."""
    columns: Columns[Region] = {
        "Region": lambda r: r.name,
        "Area (%, 0–100)": lambda r: percent(r.area),
        "Recovered ↓ (local SSIM, −1–1)": lambda r: _cell(r.recovered),
        "Prior only ↓ (local SSIM)": lambda r: _cell(r.prior),
        "Heat of the match (%, 0–100)": lambda r: _percent(r.heat),
        "Heat in the original (%, 0–100)": lambda r: _percent(r.heat_original),
        "Cosine lost when painted over (−2–2)": lambda r: (
            _whole(f"{signed(r.drop.value)} {estimate_range(r.drop)}") if r.drop else ABSENT
        ),
    }
    label = "Maps of local SSIM and of Grad-CAM heat over the picture; " + "; ".join(
        f"{r.name}: SSIM {number(r.recovered.value)}"
        + (f", {percent(r.heat.value)} of the heat" if r.heat else "")
        for r in regions.regions
    )
    why_not = "" if regions.heat else " Identity was not tested, so there is no heat to show."
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
        panels=(Panel("", label, region_maps(regions)),),
        keys=(),
        table=table(columns, regions.regions),
    )


def _artifacts(game: Game) -> Figure:
    """What each shared thing adds."""
    records = [_value(p.name, SHARE.label, p.ssim) for p in game.players]
    title = "Shapley value ↓ better (SSIM that it adds, mean over all orders)"
    svg = _beside_zero(records, (SHARE,), title, most=1.0)
    columns: Columns[Player] = {
        "Shared or known": lambda p: p.name,
        "Alone ↓ (SSIM)": lambda p: _cell(p.alone),
        "Shapley value ↓ (SSIM)": lambda p: _cell(p.ssim),
        "Shapley value ↓ (identity cosine)": lambda p: _cell(p.identity),
    }
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
        table=table(columns, game.players),
    )


def _clients(game: Game) -> Figure:
    """Which clients lose by being together."""
    records = []
    for p in game.players:
        records.append(_value(p.name, SINGLE.label, p.alone))
        records.append(_value(p.name, SHARE.label, p.ssim))
        if p.together:
            records.append(_value(p.name, TOGETHER.label, p.together))
    title = "Leakage ↓ better (SSIM above prior only, summed over a client’s images)"
    svg = _beside_zero(records, (SINGLE, SHARE, TOGETHER), title)
    columns: Columns[Player] = {
        "Client": lambda p: p.name,
        "Alone ↓ (SSIM above prior)": lambda p: _cell(p.alone),
        "Shapley value ↓ (SSIM above prior)": lambda p: _cell(p.ssim),
        "Shapley value ↓ (faces re-identified)": lambda p: _cell(p.identity),
        "Together ↓ (SSIM above prior)": lambda p: _cell(p.together),
        "Hidden by the sum ↑ (alone − together)": lambda p: _cell(p.hidden),
    }
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
        table=table(columns, game.players),
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
        _cell(leak.ssim),
        _cell(leak.prior),
        _cell(leak.excess),
        _cell(leak.cosine),
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


def _lowest(records: Sequence[dict[str, Any]]) -> float:
    """Where an axis begins that is to hold every interval: no bar runs over the labels."""
    lows: list[float] = [r["low"] for r in records if r["low"] is not None]
    return min(-0.2, *lows)


def _beside_zero(
    records: Sequence[dict[str, Any]], keys: tuple[Key, ...], title: str, most: float = math.inf
) -> Markup:
    """Intervals with a line at 0, on an axis that holds them all and ends at ±`most`."""
    low = min(0.0, *(r["low"] for r in records)) - 0.05
    high = max(0.1, *(r["high"] for r in records)) + 0.05
    return intervals(
        records,
        keys,
        x_title=title,
        domain=(max(-most, low), min(most, high)),
        axis_format=".1f",
        rule=0.0,
        rule_color="prior",
        note_width=NOTES,
    )


def _lane(group: str, lane: str, leak: Leakage | None) -> dict[str, Any]:
    ssim = leak.ssim if leak else None
    record = _value(group, lane, ssim)
    return {**record, "prior": leak.prior.value if leak else None}


def _value(group: str, lane: str, value: Estimate | None) -> dict[str, Any]:
    return {
        "group": group,
        "lane": lane,
        **bounds(value),
        "prior": None,
        "note": f"{number(value.value)} {estimate_range(value)}" if value else "— not tested",
    }


def _state(round_: int) -> str:
    if round_ == 1:
        return "fresh network"
    return f"trained for {round_ - 1} round{'s' if round_ > 2 else ''}"
