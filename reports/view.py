"""What the page needs beyond `Results`: derived, never measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedaudit.core.measures import Evidence, Rate
from fedaudit.reports.figures import state_of, unique
from fedaudit.reports.results import Ceiling, DefenseLine, Ledger, Results, Row, Verdict
from fedaudit.reports.text import percent


@dataclass(frozen=True)
class Line:
    """One line of the comparison, with what depends on other lines.

    Attributes:
        lost: Verification accuracy lost against the undefended federation, in points.
        chance: Rank-1 by guessing among the gallery's people; None where their number is unknown.
    """

    row: Row
    lost: float | None
    chance: float | None


@dataclass(frozen=True)
class ScenarioView:
    """All lines of one scenario under a header that cannot be confused with another's."""

    name: str
    state: str
    facts: str
    lines: tuple[Line, ...]
    ceiling: Ceiling | None


@dataclass(frozen=True)
class LedgerView:
    """A scenario's ledger with its model state from the rows, where there are any."""

    ledger: Ledger
    state: str


def headline_row(results: Results) -> Row | None:
    """The row that the headline speaks of, else the one with the highest lower bound."""
    for row in results.rows:
        if row.verdict.sentence == results.headline.sentence:
            return row
    measured = [(row.reid.low, row.reid.value, row) for row in results.rows if row.reid]
    return max(measured, key=lambda entry: entry[:2])[2] if measured else None


def worst_row(results: Results) -> Row | None:
    """The row that holds the highest identity cosine."""
    rows = [(row.worst_cosine, row) for row in results.rows if row.worst_cosine is not None]
    return max(rows, key=lambda entry: entry[0])[1] if rows else None


def threshold(results: Results, scenario: str) -> float | None:
    """The match threshold in a scenario."""
    found = ceiling(results, scenario)
    return found.threshold if found else None


def ceiling(results: Results, scenario: str) -> Ceiling | None:
    """What the embedder recognizes in a scenario: its own line, or the one for all."""
    lines = {c.scenario: c for c in results.ceilings}
    return lines.get(scenario, lines.get("all"))


def scenarios(results: Results) -> tuple[ScenarioView, ...]:
    """The comparison, scenario by scenario, in the order of the study."""
    views = []
    for name in unique([row.scenario for row in results.rows]):
        rows = [row for row in results.rows if row.scenario == name]
        top = ceiling(results, name)
        first = max(rows, key=lambda row: row.n_targets)
        facts = (
            f"{first.network}, {first.method}, batch size {first.batch_size}, threat model "
            f"{first.threat_model}, {first.n_targets} targets of {first.n_people} people"
        )
        chance = 1 / top.gallery_people if top and top.gallery_people else None
        lines = tuple(Line(row, _lost(row, rows), chance) for row in rows)
        views.append(ScenarioView(name, state_of(first), facts, lines, top))
    return tuple(views)


def bought(results: Results) -> tuple[tuple[str, tuple[DefenseLine, ...]], ...]:
    """What each defense buys, for scenarios that compare defenses."""
    names = unique([line.scenario for line in results.defenses])
    groups = ((n, tuple(x for x in results.defenses if x.scenario == n)) for n in names)
    return tuple((name, lines) for name, lines in groups if len(lines) > 1)


def ledgers(results: Results) -> tuple[LedgerView, ...]:
    """The ledger of each scenario."""
    states = states_of(results)
    return tuple(LedgerView(entry, states.get(entry.scenario, "")) for entry in results.ledger)


def states_of(results: Results) -> dict[str, str]:
    """The state of the model in each scenario that has a row."""
    return {row.scenario: state_of(row) for row in results.rows}


def verdict_name(verdict: Verdict | str, limit: float) -> str:
    """A verdict as printed: the limit is part of its name."""
    kind = verdict if isinstance(verdict, str) else verdict.kind
    return f"NO LEAK FOUND ABOVE {percent(limit)}" if kind == "NO LEAK FOUND ABOVE LIMIT" else kind


def not_shown(results: Results, headline: Row | None) -> tuple[str, ...]:
    """What a reader might take from the verdict, and must not."""
    points = []
    untested = [c.attack_class for c in results.coverage if not c.executed]
    if untested:
        points.append(f"Not tested: {'; '.join(untested)}. Untested is not clean.")
    if results.underpowered:
        points.append(
            "The study is under-powered: it can demonstrate a leak, it cannot rule one out."
        )
    rate_ = headline.reid if headline else None
    if rate_ and rate_.n:
        bound = _zero_bound(rate_)
        points.append(
            f"Even 0 of {rate_.n} would still allow a rate of {percent(bound)} (95 %, one-sided)."
        )
    points.append("Stronger attackers, other data and other settings may recover more.")
    return tuple(points)


def next_steps(results: Results) -> tuple[str, ...]:
    """Failed controls first, then the remedies of the gravest findings, then the study's size."""
    steps = []
    failed = unique([c.name for c in results.controls if c.passed is False])
    if failed:
        steps.append(f"Look at the failed controls first: {', '.join(failed)}.")
    order = ("critical", "high", "medium", "low", "none")
    grave = [f for f in results.findings if f.severity != "none"]
    findings = sorted(grave, key=lambda f: order.index(f.severity))
    steps += [f"{finding.id}: {finding.remedy}" for finding in findings[:2]]
    needed = results.headline.targets_needed
    if needed is not None:
        steps.append(
            f"Audit at least {needed} targets: that many would settle an inconclusive rate."
        )
    elif results.underpowered:
        steps.append("Repeat with more targets before concluding anything from a low rate.")
    return tuple(steps) or ("Keep this report with the configuration; repeat after every change.",)


def counts(results: Results) -> tuple[tuple[str, int], ...]:
    """How many rows got which verdict, in order of gravity, without the empty ones."""
    order = (
        "LEAK DEMONSTRATED",
        "INVALID",
        "INCONCLUSIVE",
        "NO LEAK FOUND ABOVE LIMIT",
        "NOT TESTED",
    )
    kinds = [row.verdict.kind for row in results.rows]
    return tuple((kind, kinds.count(kind)) for kind in order if kind in kinds)


def intervals(results: Results) -> tuple[str, ...]:
    """The methods behind the intervals of the comparison, for its caption."""
    methods = [e.method for row in results.rows for e in (row.excess, row.ssim, row.lpips) if e]
    return tuple(unique(methods))


def evidence_title(evidence: Evidence) -> str:
    """The evidence level as the banner names it."""
    return {"none": "No pictures", "redacted": "Redacted", "full": "Full"}[evidence]


def _lost(row: Row, rows: Sequence[Row]) -> float | None:
    baseline = next((r.utility for r in rows if r.defense == "none" and r.utility), None)
    if baseline is None or row.utility is None:
        return None
    return (baseline.accuracy - row.utility.accuracy) * 100


def _zero_bound(value: Rate) -> float:
    return 1.0 - float(0.05 ** (1 / value.n))
