"""The figures of Shapley values: what each shared thing adds, and each client of a sum."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from fedaudit.reports.charts import Key
from fedaudit.reports.explanation import Game, Player
from fedaudit.reports.explanation_values import NOTES, mean_cell, mean_record
from fedaudit.reports.figures import Columns, Figure, Panel, table
from fedaudit.reports.lanes import intervals
from fedaudit.reports.text import number

SHARE = Key("Shapley value", "circle", "c1")
TOGETHER = Key("from the sum of everybody", "square", "c3")
SINGLE = Key("alone", "diamond", "c2")


def artifact_values(game: Game) -> Figure:
    """What each shared thing adds."""
    records = [mean_record(p.name, SHARE.label, p.ssim) for p in game.players]
    title = "Shapley value ↓ better (SSIM that it adds, mean over all orders)"
    svg = _beside_zero(records, (SHARE,), title, most=1.0)
    columns: Columns[Player] = {
        "Shared or known": lambda p: p.name,
        "Alone ↓ (SSIM)": lambda p: mean_cell(p.alone),
        "Shapley value ↓ (SSIM)": lambda p: mean_cell(p.ssim),
        "Shapley value ↓ (identity cosine)": lambda p: mean_cell(p.identity),
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


def client_values(game: Game) -> Figure:
    """Which clients lose by being together."""
    records = []
    for p in game.players:
        records.append(mean_record(p.name, SINGLE.label, p.alone))
        records.append(mean_record(p.name, SHARE.label, p.ssim))
        if p.together:
            records.append(mean_record(p.name, TOGETHER.label, p.together))
    title = "Leakage ↓ better (SSIM above prior only, summed over a client’s images)"
    svg = _beside_zero(records, (SINGLE, SHARE, TOGETHER), title)
    columns: Columns[Player] = {
        "Client": lambda p: p.name,
        "Alone ↓ (SSIM above prior)": lambda p: mean_cell(p.alone),
        "Shapley value ↓ (SSIM above prior)": lambda p: mean_cell(p.ssim),
        "Shapley value ↓ (faces re-identified)": lambda p: mean_cell(p.identity),
        "Together ↓ (SSIM above prior)": lambda p: mean_cell(p.together),
        "Hidden by the sum ↑ (alone − together)": lambda p: mean_cell(p.hidden),
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
