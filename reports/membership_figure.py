"""Who is told to be in the data: ROC curves of the strongest attack on people, by defense."""

from collections.abc import Sequence

import altair as alt
from markupsafe import Markup

from fedaudit.core.inference import Membership, MembershipScore
from fedaudit.reports.charts import COLORS, Key, draw, over, series
from fedaudit.reports.figures import Columns, Figure, Panel, table, unique
from fedaudit.reports.membership_lines import strongest_score
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, number, p_value, percent, rate

LEAST = 1e-3
"""Where the logarithmic axes begin."""
CHANCE = Key("chance", "dash", "prior")


def membership_curves(results: Results) -> Figure:
    """Figure (g): share of members recognized, over the share of others taken for members."""
    keys = series(unique([line.defense for line in results.membership]))
    panels = []
    for scenario in unique([line.scenario for line in results.membership]):
        lines = [line for line in results.membership if line.scenario == scenario and line.scores]
        for level in ("person", "image"):
            curves = [(line, score) for line in lines if (score := strongest_score(line, level))]
            if curves:
                what = "people, by other photos" if level == "person" else "training photos"
                title = f"{scenario}: {what}"
                panels.append(Panel(title, f"ROC of membership, {title}", _panel(curves, keys)))
    reasons = unique([line.reason for line in results.membership if line.reason])
    missing = Panel("", "", why="; ".join(reasons) or "No study asked for it (inference = true).")
    rows = [(line, score) for line in results.membership for score in line.scores]
    columns: Columns[tuple[Membership, MembershipScore]] = {
        "Scenario": lambda x: x[0].scenario,
        "Defense": lambda x: x[0].defense,
        "Asked for": lambda x: x[1].level,
        "Attack": lambda x: x[1].attack,
        "AUC ↓ (0–1; 0.5 is chance)": lambda x: number(x[1].auc),
        "97.5 % of shuffled memberships below": lambda x: number(x[1].shuffled),
        "Holm p": lambda x: p_value(x[1].p_adjusted),
        "Recognized at 0.1 % false positives ↓ (%, 0–100) [95 % CI] n": lambda x: _at(x[1], 0.001),
        "at 1 %": lambda x: _at(x[1], 0.01),
        "at the smallest rate": lambda x: _smallest(x[1]),
        "People in the data, in nobody's": lambda x: f"{x[0].members}, {x[0].outsiders}",
    }
    return Figure(
        id="membership",
        title="Who is in a client's data",
        reading=(
            "Share of members that the server recognizes (up) over the share of pairs of a client "
            "and somebody in nobody's data that it takes for members (right); both axes are "
            "logarithmic, and the lower left counts. Dashed: guessing. Of each defense the attack "
            "that recognizes most is drawn; all are in the table. “—”: too few people for so small "
            "a rate."
        ),
        panels=tuple(panels) or (missing,),
        keys=(*keys, CHANCE) if panels else (),
        table=table(columns, rows),
    )


def _at(score: MembershipScore, fpr: float) -> str:
    return next((rate(one.tpr) for one in score.recalls if one.fpr == fpr), ABSENT)


def _smallest(score: MembershipScore) -> str:
    recalls = [one for one in score.recalls if one.tpr]
    return f"{rate(recalls[0].tpr)} at {percent(recalls[0].fpr)}" if recalls else ABSENT


def _panel(curves: Sequence[tuple[Membership, MembershipScore]], keys: Sequence[Key]) -> Markup:
    scale = alt.Scale(type="log", domain=[LEAST, 1])
    values, grid = [LEAST, 0.01, 0.1, 1], COLORS["grid"]
    axis = {"values": values, "format": "~%", "gridColor": grid}
    x = alt.X("x:Q", title="false positives", scale=scale, axis=alt.Axis(**axis))
    y = alt.Y("y:Q", title="members recognized", scale=scale, axis=alt.Axis(**axis))
    diagonal = over([{"x": LEAST, "y": LEAST}, {"x": 1, "y": 1}])
    layers = [
        diagonal.mark_line(color=COLORS["prior"], strokeDash=[5, 4], strokeWidth=2).encode(x=x, y=y)
    ]
    for line, score in curves:
        key = next(one for one in keys if one.label == line.defense)
        points = [{"x": max(a, LEAST), "y": max(b, LEAST)} for a, b in score.roc]
        step = over(points).mark_line(
            color=COLORS[key.color], strokeWidth=2.5, interpolate="step-after"
        )
        layers.append(step.encode(x=x, y=y))
    return draw(layers, height=300, left=72, right=24, bottom=56)
