"""The figures of an explanation: each a question, a picture, and the numbers in it as a table."""

from collections.abc import Callable, Sequence
from typing import Any

from fedaudit.reports.charts import Key
from fedaudit.reports.explanation import Explanation, Layers, Part, Region, Regions, Round
from fedaudit.reports.explanation_values import (
    LEAK_COLUMNS,
    NOTES,
    leak_cells,
    leak_record,
    mean_cell,
    percent_cell,
    unbroken,
)
from fedaudit.reports.figures import Columns, Figure, Panel, Table, state, table
from fedaudit.reports.lanes import intervals
from fedaudit.reports.region_maps import region_maps
from fedaudit.reports.shapley_figures import artifact_values, client_values
from fedaudit.reports.text import ABSENT, estimate_range, number, percent, signed

ALONE = Key("this layer alone", "circle", "c1")
WITHOUT = Key("all but this layer", "diamond", "c2")
WHOLE = Key("the whole update", "square", "c3")
LEAK = Key("leakage (SSIM)", "circle", "c1")
WORTH = Key("accuracy (share of pairs)", "square", "c3")
PRIOR = Key("prior only", "tick", "prior")

SSIM = "SSIM ↓ better (no unit, −1–1)"


def figures(explanation: Explanation) -> dict[Part, Figure | None]:
    """One a part; None where it was not tested."""
    draw: dict[Part, Callable[[Any], Figure]] = {
        "layers": _layers,
        "rounds": _rounds,
        "regions": _regions,
        "artifacts": artifact_values,
        "clients": client_values,
    }
    parts = {name: getattr(explanation, name) for name in draw}
    return {name: None if parts[name] is None else draw[name](parts[name]) for name in draw}


def _layers(layers: Layers) -> Figure:
    """Which layer holds the faces."""
    records: list[dict[str, Any]] = [leak_record("everything", WHOLE.label, layers.all)]
    for layer in layers.layers:
        records.append(leak_record(layer.name, ALONE.label, layer.alone))
        if layer.without:
            records.append(leak_record(layer.name, WITHOUT.label, layer.without))
    svg = intervals(
        records,
        (WHOLE, ALONE, WITHOUT),
        x_title=SSIM,
        domain=(_lowest(records), 1.0),
        axis_format=".1f",
        note_width=NOTES,
    )
    rows = [("everything", ABSENT, "all", *leak_cells(layers.all), ABSENT)]
    for layer in layers.layers:
        size = f"{layer.values:,}"
        rows.append((layer.name, size, "alone", *leak_cells(layer.alone), ABSENT))
        rows.append(
            (layer.name, size, "left out", *leak_cells(layer.without), mean_cell(layer.lost))
        )
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
            ("Layer", "Numbers", "Attacker sees it", *LEAK_COLUMNS, "Lost without it ↑ (SSIM)"),
            tuple(rows),
        ),
    )


def _rounds(rounds: tuple[Round, ...]) -> Figure:
    """How leakage moves as the network learns."""
    records: list[dict[str, Any]] = []
    for row in rounds:
        group = f"round {row.round}"
        records.append({**leak_record(group, LEAK.label, row.leakage), "under": _state(row.round)})
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
            ("Round", "Model", *LEAK_COLUMNS, "Verification accuracy ↑ (%, 50 is chance)"),
            tuple(
                (str(r.round), state(r.round), *leak_cells(r.leakage), percent(r.accuracy))
                for r in rounds
            ),
        ),
    )


def _regions(regions: Regions) -> Figure:
    """Which regions came back, and which carry the match."""
    columns: Columns[Region] = {
        "Region": lambda r: r.name,
        "Area (%, 0–100)": lambda r: percent(r.area),
        "Recovered ↓ (local SSIM, −1–1)": lambda r: mean_cell(r.recovered),
        "Prior only ↓ (local SSIM)": lambda r: mean_cell(r.prior),
        "Heat of the match (%, 0–100)": lambda r: percent_cell(r.heat),
        "Heat in the original (%, 0–100)": lambda r: percent_cell(r.heat_original),
        "Cosine lost when painted over (−2–2)": lambda r: (
            unbroken(f"{signed(r.drop.value)} {estimate_range(r.drop)}") if r.drop else ABSENT
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


def _lowest(records: Sequence[dict[str, Any]]) -> float:
    """Where an axis begins that is to hold every interval: no bar runs over the labels."""
    lows: list[float] = [r["low"] for r in records if r["low"] is not None]
    return min(-0.2, *lows)


def _state(round_: int) -> str:
    if round_ == 1:
        return "fresh network"
    return f"trained for {round_ - 1} round{'s' if round_ > 2 else ''}"
