"""Which figures a report holds, in order; each is drawn only from data that exist."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fedaudit.core.measures import Rate
from fedaudit.reports.charts import Key, series
from fedaudit.reports.comparison import Row
from fedaudit.reports.lanes import bounds, intervals
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, defense_name, percent, rate


@dataclass(frozen=True)
class Panel:
    """One picture of a figure, or the reason why there is none."""

    title: str
    alt: str
    svg: Markup | None = None
    why: str = ""


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure. Each column header carries direction, unit and range."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A question, its pictures, and the numbers in them."""

    id: str
    title: str
    reading: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...]
    table: Table


def unique(names: Sequence[str]) -> list[str]:
    """Names in order of first appearance."""
    return list(dict.fromkeys(names))


def state(round_: int) -> str:
    """The state of the audited model, so that fresh and trained cannot be confused.

    >>> state(1), state(30)
    ('fresh global model (round 1)', 'trained model (round 30)')
    """
    return "fresh global model (round 1)" if round_ == 1 else f"trained model (round {round_})"


def state_of(row: Row) -> str:
    """The state of the model that a row is about, recorded or simulated."""
    return row.model_state or state(row.round)


def scenario_title(rows: Sequence[Row], scenario: str) -> str:
    """Name of a scenario with its model state; the state is missing where no row tells it."""
    states = [state_of(row) for row in rows if row.scenario == scenario]
    return f"{scenario} — {states[0]}" if states else scenario


def brief(rows: Sequence[Row], scenario: str) -> str:
    """The model state in two words, where a chart has no room for more."""
    mine = [row for row in rows if row.scenario == scenario]
    rounds = [row.round for row in mine]
    if not rounds:
        return "state unknown"
    if mine[0].model_state:
        return "as recorded"
    return "fresh, round 1" if rounds[0] == 1 else f"trained, round {rounds[0]}"


def reidentification(results: Results) -> Figure:
    """Figure (a): re-identification by attack × defense, with the prior-only line."""
    attacks = series(unique([row.attack for row in results.rows]))
    panels = []
    for scenario in unique([row.scenario for row in results.rows]):
        rows = [row for row in results.rows if row.scenario == scenario]
        title = scenario_title(rows, scenario)
        if not any(row.reid for row in rows):
            panels.append(Panel(title, "", why="Identity was not measured in this scenario."))
            continue
        svg = _reid_panel(rows, attacks, results.settings.reid_limit)
        label = f"Re-identification rate of each attack against each defense; {title}"
        panels.append(Panel(title, label, svg))
    return Figure(
        id="reid",
        title="Re-identification by attack and defense",
        reading=(
            "Point: share of reconstructed faces that the independent embedder matches to the "
            f"right person at FMR {results.settings.fmr:g}. Bar: exact 95 % interval. Gray tick: "
            f"the same attack without the update (prior only). A bar that clears its gray tick is "
            f"leakage. Dashed line: the limit T = {percent(results.settings.reid_limit)}."
        ),
        panels=tuple(panels),
        keys=(
            *attacks,
            Key("prior only", "tick", "prior"),
            Key(f"limit T = {percent(results.settings.reid_limit)}", "dash", "limit"),
        ),
        table=Table(
            (
                "Scenario",
                "Model state",
                "Defense",
                "Attack",
                "Re-identification ↓ (%, 0–100) [95 % CI] n",
                "Prior only ↓ (%, 0–100) [95 % CI] n",
            ),
            tuple(
                (
                    row.scenario,
                    state_of(row),
                    defense_name(row.defense),
                    row.attack,
                    rate(row.reid),
                    rate(_prior(row)),
                )
                for row in results.rows
            ),
        ),
    )


def _prior(row: Row) -> Rate | None:
    return row.measurement.prior if row.measurement else None


def _reid_panel(rows: Sequence[Row], attacks: Sequence[Key], limit: float) -> Markup:
    records = [
        {
            "group": defense_name(row.defense),
            "lane": row.attack,
            **bounds(row.reid),
            "prior": prior.value if (prior := _prior(row)) else None,
            "note": f"{row.reid.hits} of {row.reid.n}" if row.reid else f"{ABSENT} not tested",
        }
        for row in rows
    ]
    return intervals(
        records,
        attacks,
        x_title="Re-identification ↓ better (%, 0–100)",
        domain=(0.0, 1.0),
        axis_format=".0%",
        rule=limit,
    )
