"""Leakage and utility over a defense's setting: a curve says more than a point."""

from collections.abc import Sequence
from functools import partial

import altair as alt
from markupsafe import Markup

from fedaudit.core.claims import epsilon, in_short
from fedaudit.reports.charts import COLORS, NARROW, Key, both, draw, lines, over, series
from fedaudit.reports.comparison import DefenseLine, Row
from fedaudit.reports.defense_lines import sweeps
from fedaudit.reports.figures import Columns, Figure, Panel, scenario_title, table, unique
from fedaudit.reports.lanes import bounds, rate_axis
from fedaudit.reports.plain_names import attack_name
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, accuracy, number, rate

ACCURACY = Key("verification accuracy", "dash", "prior")
UNDEFENDED = "none"


def setting_curves(results: Results) -> Figure:
    """Figure (f): re-identification by each attack, and accuracy, over a setting."""
    curves = sweeps(results.defenses)
    attacks = series(unique([attack_name(row.attack) for row in results.rows]))
    panels: list[Panel] = []
    cells: list[tuple[str, str, str, DefenseLine, Row]] = []
    for (scenario, name, setting), some in curves.items():
        bare = [x for x in results.defenses if x.scenario == scenario and x.name == UNDEFENDED]
        points = [*some, *bare[:1]]
        title = f"{name}, by {setting}; {scenario_title(results.rows, scenario)}"
        label = f"Re-identification and accuracy over {setting} of {name}; {scenario}"
        rows = [row for row in results.rows if row.scenario == scenario]
        panels.append(Panel(title, label, both(partial(_panel, points, rows, setting, attacks))))
        cells += [(scenario, name, setting, x, row) for x in points for row in _of(x, rows)]
    columns: Columns[tuple[str, str, str, DefenseLine, Row]] = {
        "Scenario": lambda x: x[0],
        "Defense": lambda x: x[1],
        "Setting": lambda x: f"{x[2]} = {_value(x[3], x[2])}" if x[3].name == x[1] else UNDEFENDED,
        "ε claimed ↓ (0 and up; δ, unit, rounds, scope)": lambda x: in_short(x[3].claims, ABSENT),
        "Attack": lambda x: attack_name(x[4].attack),
        "Adaptive": lambda x: x[4].adaptive,
        "Re-identification ↓ (%, 0–100) [95 % CI] n": lambda x: rate(x[4].reid),
        "SSIM ↓ (no unit, −1–1)": lambda x: (
            number(m.ssim.value) if (m := x[4].measurement) and m.ssim else ABSENT
        ),
        "Verification accuracy ↑ (%, 50 is chance, to 100) [95 % CI] people": lambda x: accuracy(
            x[3].utility.accuracy if x[3].utility else None
        ),
    }
    return Figure(
        id="sweeps",
        title="Over a defense's setting",
        reading=(
            "Points: share of faces that each attack re-identifies, with exact 95 % intervals, at "
            "the settings that were run, in order; the last is the undefended client. Dashed: "
            "verification accuracy of the federation that trained with that setting. Between "
            "points nothing was measured."
        ),
        panels=tuple(panels)
        or (Panel("", "", why="No defense was run at three values of one setting or more."),),
        keys=(*attacks, ACCURACY) if panels else (),
        table=table(columns, cells),
    )


def _of(line: DefenseLine, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.defense == line.defense]


def _value(line: DefenseLine, setting: str) -> str:
    return f"{line.settings[setting]:g}" if setting in line.settings else UNDEFENDED


def _scope(points: Sequence[DefenseLine]) -> str:
    """What the ε beside each setting is for; "" where they are for different things, or none."""
    scopes = {(c.unit, c.rounds, c.delta) for x in points for c in x.claims[:1] if not c.broken}
    if len(scopes) != 1 or any(len(x.claims) > 1 for x in points):
        return ""
    ((unit, rounds, delta),) = scopes
    over = "the whole training" if rounds is None else f"{rounds} round(s)"
    return f"; in brackets ε at δ = {delta:g} per {unit}, {over}"


def _tick(line: DefenseLine, setting: str, scope: str) -> str:
    value = _value(line, setting)
    if not scope or not line.claims:
        return value
    (claim,) = line.claims
    return f"{value} (broken)" if claim.broken else f"{value} ({epsilon(claim)})"


def _panel(
    points: Sequence[DefenseLine],
    rows: Sequence[Row],
    setting: str,
    keys: Sequence[Key],
    width: int,
) -> Markup:
    small = width == NARROW
    left, right = (52, 8) if small else (72, 24)
    places = {line.defense: k for k, line in enumerate(points)}
    spread = 0.5 / max(1, len(keys))
    records = [
        {
            "x": places[row.defense] + (k - (len(keys) - 1) / 2) * spread * 0.5,
            "reid": row.reid.value,
            **bounds(row.reid),
            "attack": key.label,
        }
        for k, key in enumerate(keys)
        for row in rows
        if attack_name(row.attack) == key.label and row.defense in places and row.reid
    ]
    worth = [
        {"x": places[line.defense], "accuracy": line.utility.accuracy.value}
        for line in points
        if line.utility
    ]
    scope = _scope(points)
    room = (width - left - right) / len(points)
    words = [lines(_tick(line, setting, scope), room) for line in points]
    names = [{"x": k, "label": label, "y": 0} for k, label in enumerate(words)]
    under = 4 + 14 * max(map(len, words))
    domain = [-0.5, len(points) - 0.5]
    x = alt.X("x:Q", title=None, scale=alt.Scale(domain=domain, nice=False), axis=None)

    layers: list[alt.Chart] = []
    if worth:
        line = over(worth).mark_line(color=COLORS["prior"], strokeDash=[5, 4], strokeWidth=2)
        layers.append(line.encode(x=x, y=rate_axis("accuracy")))
    for key in keys:
        mine = [record for record in records if record["attack"] == key.label]
        if not mine:
            continue
        color = COLORS[key.color]
        base = over(mine).encode(x=x)
        layers += [
            base.mark_line(color=color, strokeWidth=1.5, opacity=0.6).encode(y=rate_axis("reid")),
            base.mark_rule(color=color, strokeWidth=2, opacity=0.5).encode(
                y=rate_axis("low"), y2=alt.Y2("high:Q")
            ),
            base.mark_point(shape=key.shape, size=70, opacity=1, fill=color, stroke=color).encode(
                y=rate_axis("reid")
            ),
        ]
    text = over(names).mark_text(
        align="center", baseline="top", dy=10, fontSize=12, color=COLORS["ink"]
    )
    layers.append(text.encode(x=x, y=rate_axis("y"), text=alt.Text("label:N")))
    title = over(
        [{"x": (len(points) - 1) / 2, "y": 0, "label": lines(setting + scope, width - left)}]
    )
    layers.append(
        title.mark_text(
            align="center", baseline="top", dy=10 + under, fontSize=12, color=COLORS["muted"]
        ).encode(x=x, y=rate_axis("y"), text=alt.Text("label:N"))
    )
    bottom = under + (44 if small else 28)
    return draw(layers, height=260, width=width, left=left, right=right, bottom=bottom)
