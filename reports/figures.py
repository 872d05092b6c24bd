"""What a figure is: a question, its pictures, and the numbers in them; and names of scenarios."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

from fedaudit.reports.charts import Key
from fedaudit.reports.comparison import Row

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], str]]
"""Of a table, each once: its header, and its cell of a line."""


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


def table(columns: Columns[T], lines: Sequence[T]) -> Table:
    """The numbers of these lines."""
    return Table(tuple(columns), tuple(tuple(cell(x) for cell in columns.values()) for x in lines))


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
