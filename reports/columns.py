"""The columns of every comparison, each declared once: for the page, Markdown and terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedaudit.core.measures import MetricFacts
from fedaudit.reports import cells, worth_cells
from fedaudit.reports.cells import Cell, Scene
from fedaudit.reports.comparison import DefenseLine, Exposure, Row
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, visible

T_contra = TypeVar("T_contra", contravariant=True)

RATE = "%, 0–100 [CI], n"
ACCURACY = "%, 50 is chance, to 100 [CI]"
LOST = "points, against none, −100–100 [CI]"
EFFORT = "CPU s a target, median, 0 and up; steps; convergence"
SHOWN = "at least, 0 and up; 95 % confidence"


@dataclass(frozen=True)
class Column(Generic[T_contra]):
    """One column.

    Attributes:
        cell: Of a line in its scene.
        title, scale: Its head on the page: with an arrow toward less leakage, more utility, less
            cost; and unit and range. No title: it is not on the page.
        name: Its head in a plain table; "": it is not there.
    """

    cell: Callable[[T_contra, Scene], Cell]
    title: str = ""
    scale: str = ""
    name: str = ""


def metric(facts: MetricFacts) -> Column[Row | DefenseLine | Exposure]:
    """The column of an image metric, declared by the metric itself."""

    def cell(x: Row | DefenseLine | Exposure, scene: Scene) -> Cell:
        values = x.measurement.metrics if x.measurement else {}
        return cells.estimate(values.get(facts.name), facts.digits)

    title = f"{facts.title} {facts.arrow}"
    return Column(cell, title, f"{facts.scale} [CI], n", facts.title)


def of_defenses(metrics: Sequence[MetricFacts]) -> tuple[Column[DefenseLine], ...]:
    """Columns of the comparison of defenses, each under the strongest attack on it."""
    return (
        Column(lambda x, _: Cell(x.scenario), name="scenario"),
        Column(cells.defense, "Defense", "role; strongest attack", "defense"),
        Column(lambda x, _: Cell(x.role), name="role"),
        Column(lambda x, _: Cell(x.attack or ABSENT), name="strongest attack"),
        Column(lambda x, _: Cell(x.adaptive or ABSENT), name="adaptive"),
        Column(cells.gravest, "Verdict", name="verdict"),
        Column(cells.reid, "Re-identification ↓", f"{RATE}; bar 0–100 %", "re-id"),
        Column(lambda x, _: cells.rate(x.reid_blind), "Blind attack ↓", RATE, "blind"),
        Column(lambda x, _: cells.rate(x.reid_adapted), "Adapted attack ↓", RATE, "adapted"),
        Column(cells.reduction, "Reduction ↑", "points, −100–100 [CI], n; Holm p"),
        Column(lambda x, _: cells.p_value(x.p_holm), name="reduction, Holm p"),
        Column(cells.excess, "Excess over prior ↓", "points, −100–100 [CI], n", "excess"),
        Column(cells.worst, "Worst cosine ↓", "no unit, −1–1", "worst cosine"),
        *map(metric, metrics),
        Column(worth_cells.accuracy, "Verification ↑", ACCURACY, "accuracy"),
        Column(worth_cells.without_training, name="untrained"),
        Column(worth_cells.central, name="central"),
        Column(worth_cells.accuracy_loss, "Accuracy lost ↓", LOST, "lost"),
        Column(worth_cells.overhead, "Overhead ↓", "times, 0 and up; 1 is none", "overhead"),
        Column(worth_cells.kilobytes, "Sent ↓", "kB a client a round, 0 and up", "kB sent"),
        Column(cells.epsilon, "ε claimed ↓", "0 and up; δ, unit, rounds, scope", "ε claimed"),
        Column(cells.shown, "ε shown ↓", SHOWN, "ε shown"),
        Column(cells.members, "Members recognized ↓", RATE, "members"),
        Column(cells.properties, name="properties"),  # on the page they have a table of their own
        Column(cells.dominator, "Dominated by", name="dominated by"),
    )


def of_rows(metrics: Sequence[MetricFacts]) -> tuple[Column[Row], ...]:
    """Columns of the comparison of attacks: every attack on every defense."""
    return (
        Column(cells.attack, "Defense", "role; attack"),
        Column(cells.verdict, "Verdict"),
        Column(cells.reid, "Re-identification ↓", f"{RATE}; bar 0–100 %"),
        Column(cells.excess, "Excess over prior ↓", "points, −100–100 [CI], n"),
        Column(cells.worst, "Worst cosine ↓", "no unit, −1–1"),
        *map(metric, metrics),
        Column(cells.rank1, "Rank-1 ↓", RATE),
        Column(cells.labels, "Labels found ↓", "%, 0–100"),
        Column(worth_cells.accuracy, "Verification ↑", ACCURACY),
        Column(worth_cells.accuracy_loss, "Accuracy lost ↓", LOST),
        Column(cells.effort, "Attack effort ↑", EFFORT),
        Column(worth_cells.training, "Training time ↓", "s, 0 and up"),
        Column(cells.epsilon, "ε claimed ↓", "0 and up; δ, unit, rounds, scope"),
        Column(cells.shown, "ε shown ↓", SHOWN),
        Column(lambda x, _: Cell(x.adaptive if x.measurement else ABSENT), "Adaptive attack"),
        Column(cells.holm, "Holm p", "test on identity, 0–1; small: it says who it was"),
    )


def of_exposures(metrics: Sequence[MetricFacts]) -> tuple[Column[Exposure], ...]:
    """Columns of the exposure map: what each thing that was sent gave away."""
    return (
        Column(lambda x, _: cells.rate(x.reid), "Re-identification ↓", RATE),
        Column(cells.prior, "Prior only ↓", RATE),
        Column(cells.first, "Rank-1 ↓", RATE),
        *map(metric, metrics[:1]),
    )


def scene(results: Results, scenario: str) -> Scene:
    """What the cells of a scenario depend on."""
    lines = [line for line in results.defenses if line.scenario == scenario]
    bare = next((line.utility for line in lines if line.name == "none"), None)
    people = {c.scenario: c.gallery_people for c in results.ceilings}
    count = people.get(scenario, people.get("all"))
    members = {line.defense: line for line in results.membership if line.scenario == scenario}
    bounds = {line.defense: line for line in results.shown_epsilon if line.scenario == scenario}
    alike = {line.defense for line in lines if line.same_training}
    return Scene(bare, 1 / count if count else None, members, bounds, alike)


def plain(results: Results) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of a plain table of what each defense buys."""
    columns = [column for column in of_defenses(results.metrics) if column.name]
    rows = []
    for line in results.defenses:
        here = scene(results, line.scenario)
        cells = [column.cell(line, here) for column in columns]
        rows.append([visible(cell.brief or cell.value) for cell in cells])
    return [column.name for column in columns], rows


def markdown(results: Results) -> str:
    """The same as a Markdown table; pipes in names are escaped."""
    names, rows = plain(results)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)
