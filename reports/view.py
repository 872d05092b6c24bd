"""What the page needs beyond `Results`: derived, never measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from fedaudit.core.measures import Evidence
from fedaudit.reports.cells import Cell
from fedaudit.reports.columns import Column, of_defenses, of_exposures, of_rows, scene
from fedaudit.reports.comparison import GRAVITY, Reason, Row
from fedaudit.reports.figures import state_of, unique
from fedaudit.reports.findings import NO_CONTROL
from fedaudit.reports.limitations import UNRUN
from fedaudit.reports.plain_names import defense_name
from fedaudit.reports.results import Finding, Results
from fedaudit.reports.text import counted, percent
from fedaudit.reports.verdicts import ORDER
from fedaudit.stats.intervals import clopper_pearson

T = TypeVar("T")

OPEN: Mapping[Reason, str] = {
    "data too small": "The data has too few people: use a larger set, or raise reid_limit.",
    "no power": "The attack was not shown to work without a defense: give it more steps.",
    "blind attack": "The attack takes the defense for absent: add one that knows it.",
    "unconverged": "The search had not ended: give it more steps.",
    "no undefended control": 'Nothing shows that the attack works: add "none" to the defenses.',
    "no prior-only control": NO_CONTROL,
    "source not shown": "Whether a face came from the update, or from what the attacker knew "
    "before, is open: audit more people, or attack without that knowledge.",
    "prior overlap": "The attack's prior knows the audited photos: use another one.",
    "not explained": "The attack explains no update: check learning rate, steps and batch.",
    "not run": "Part of the study has no result: run the same command again.",
}
"""What to do about a verdict that is open, by its reason."""
FEW = 4
"""Names that a sentence lists one by one."""


@dataclass(frozen=True)
class Comparison:
    """A table of the comparison under a header that cannot be confused with another's.

    Attributes:
        state: Of the model, where the table is of single attacks.
        heads: Title, unit and range of each column.
        rows: Their cells.
    """

    scenario: str
    state: str
    facts: str
    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]


def headline_row(results: Results) -> Row | None:
    """The row that the headline speaks of; None where it speaks of none or of several."""
    return None if results.headline_row is None else results.rows[results.headline_row]


def lead(sentence: str) -> tuple[str, str]:
    """The beginning of a long sentence, which says what was found, and the rest.

    >>> lead("0 of 6 people re-identified; too few to say more. Run more.")
    ('0 of 6 people re-identified', 'Too few to say more. Run more.')
    """
    ends = [place for mark in ("; ", ". ") if (place := sentence.find(mark)) > 0]
    if not ends:
        return sentence, ""
    end = min(ends)
    stop = "." if sentence[end] == "." else ""
    rest = sentence[end + 2 :]
    return sentence[:end] + stop, rest[:1].upper() + rest[1:]


def judged(results: Results) -> str:
    """Which defenses the verdict is about, in words; "" where its sentence says it."""
    if results.headline.kind == "COMPARISON":
        return ""
    if not results.deployed:
        return "Comparison: no defense is named as deployed, so none is judged."
    names = ", ".join(map(defense_name, results.deployed))
    alternatives = unique([row.defense for row in results.rows if row.role == "alternative"])
    others = ", ".join(map(defense_name, alternatives[:FEW]))
    if len(alternatives) > FEW:
        others = f"{len(alternatives)} defenses, below"
    others = f" Compared with it below: {others}." if others else ""
    return f"The verdict is on what is deployed: {names}.{others}"


def worst_row(results: Results) -> Row | None:
    """The row that holds the highest identity cosine: of what is deployed, or of all compared."""
    candidates = [row for row in results.rows if not results.deployed or row.role == "deployed"]
    rows = [(row.worst_cosine, row) for row in candidates if row.worst_cosine is not None]
    return max(rows, key=lambda entry: entry[0])[1] if rows else None


def threshold(results: Results, scenario: str) -> float | None:
    """The match threshold in a scenario: its own, or the one for all."""
    lines = {c.scenario: c.threshold for c in results.ceilings}
    return lines.get(scenario, lines.get("all"))


def attacks_table(results: Results) -> tuple[Comparison, ...]:
    """Every attack on every defense, scenario by scenario, in the order of the study."""
    columns, tables = of_rows(results.metrics), []
    for name in unique([row.scenario for row in results.rows]):
        rows = [row for row in results.rows if row.scenario == name]
        first = max(rows, key=lambda row: row.measurement.n_targets if row.measurement else 0)
        m = first.measurement
        facts = (
            f"{first.network}, {first.method}, batch size {first.batch_size}, threat model "
            f"{first.threat_model}, {m.n_targets if m else 0} targets of {m.n_people if m else 0} "
            "people"
        )
        tables.append(_comparison(results, name, columns, rows, state_of(first), facts))
    return tuple(tables)


def defenses_table(results: Results) -> tuple[Comparison, ...]:
    """What each defense buys, for scenarios that compare defenses."""
    columns = of_defenses(results.metrics)
    names = unique([line.scenario for line in results.defenses])
    groups = [(n, [line for line in results.defenses if line.scenario == n]) for n in names]
    return tuple(
        _comparison(results, name, columns, lines) for name, lines in groups if len(lines) > 1
    )


def _comparison(
    results: Results,
    scenario: str,
    columns: Sequence[Column[T]],
    lines: Sequence[T],
    state: str = "",
    facts: str = "",
) -> Comparison:
    here, titled_columns = scene(results, scenario), [column for column in columns if column.title]
    return Comparison(
        scenario,
        state,
        facts,
        tuple((column.title, column.scale) for column in titled_columns),
        tuple(tuple(column.cell(line, here) for column in titled_columns) for line in lines),
    )


def exposure_table(results: Results) -> tuple[tuple[tuple[str, str], ...], list[list[Cell]]]:
    """Heads, and cells of each line of the exposure map."""
    columns = of_exposures(results.metrics)
    cells = [
        [column.cell(e, scene(results, e.scenario)) for column in columns]
        for e in results.exposures
    ]
    return tuple((column.title, column.scale) for column in columns), cells


def states_of(results: Results) -> dict[str, str]:
    """The state of the model in each scenario that has a row."""
    return {row.scenario: state_of(row) for row in results.rows}


def not_shown(results: Results, headline: Row | None) -> tuple[str, ...]:
    """What the verdict does not show, though a reader might take it to."""
    gaps = [c.attack_class for c in results.coverage if not c.executed]
    first = f"Not tested: {'; '.join(gaps)}. Untested is not clean. " if gaps else ""
    points = [f"{first}Stronger attacks or other data may recover more."]
    # A part of a study looks like all of it, unless a reader of the first screen is told.
    points += [line for line in results.limitations if UNRUN in line]
    if results.underpowered:
        points.append(
            "The study is under-powered: it can demonstrate a leak, and cannot rule one out. Of a "
            "low rate, believe only the upper end of its interval."
        )
    rate_ = headline.reid if headline else None
    if rate_ and rate_.n:
        bound = clopper_pearson(0, rate_.n)[1]
        none = counted(replace(rate_, hits=0))
        points.append(
            f"Had it been {none}, a rate of up to {percent(bound)} would be possible still."
        )
    return tuple(points)


def next_steps(results: Results) -> tuple[str, ...]:
    """Failed controls first, then the remedies of the gravest findings, then the study's size."""
    steps = []
    names = unique([c.name for c in results.controls if c.passed is False])
    if names:
        steps.append(f"Look at the failed controls first: {', '.join(names)}.")
    grave = [f for f in results.findings if f.severity != "none"]
    findings = sorted(grave, key=lambda f: -ORDER.index(f.severity))
    remedies: dict[str, list[str]] = {}
    for finding in findings:
        remedies.setdefault(finding.remedy, []).append(finding.id)
    steps += [f"{remedy} ({', '.join(ids)})" for remedy, ids in list(remedies.items())[:2]]
    people = results.headline.targets_needed
    if people is not None:
        steps.append(
            f"Audit at least {people} people, or updates that share nobody: that settles it."
        )
    elif results.headline.reason:
        reason = results.headline.reason
        step = OPEN.get(reason, f"Mend what keeps the verdict open: {reason}.")
        steps += [] if step in remedies else [step]  # a finding may have said so
    elif results.underpowered:
        steps.append("Repeat with more targets before concluding anything from a low rate.")
    return tuple(steps) or ("Keep this report with the configuration; repeat after every change.",)


def controls_held(results: Results) -> str:
    """How many controls held, of those that were judged, and how many were not."""
    tests = [c for c in results.controls if c.passed is not None]
    passes, others = sum(bool(c.passed) for c in tests), len(results.controls) - len(tests)
    more = f"; {others} {'was' if others == 1 else 'were'} not judged" if others else ""
    return f"{passes} of {len(tests)} control experiments held{more}"


def signing(results: Results) -> tuple[str, ...]:
    """What somebody who signs the report must know of its controls and of who signed before."""
    tests = [c for c in results.controls if c.passed is not None]
    controls = f"{controls_held(results)}."
    if not tests or not all(c.passed for c in tests):
        controls += " Verdicts that rest on the others are void."
    s = results.sign_off
    if s is None:
        return (
            controls,
            "This run is not signed off yet (fedaudit sign). A signature says that this record is "
            "true and unaltered; it clears no release.",
        )
    return controls, f"Signed off by {s.auditor} on {s.signed}, for {s.system}."


def causes(results: Results) -> tuple[tuple[str, tuple[Finding, ...]], ...]:
    """The findings by their cause, in the order of the gravest of each."""
    groups: dict[str, list[Finding]] = {}
    for finding in results.findings:
        groups.setdefault(finding.cause, []).append(finding)
    return tuple((cause, tuple(mine)) for cause, mine in groups.items())


def attacks_run(results: Results) -> tuple[tuple[str, str], ...]:
    """Each attack that ran, by its label: its name, settings and adaptation, as the study says.

    Labels are the study's: "blind" alone does not say which attack that was.
    """
    stated: dict[str, dict[str, None]] = {}
    for row in results.rows:
        if row.measurement and row.attack_settings:
            stated.setdefault(row.attack, {})[row.attack_settings] = None
    return tuple((label, "; ".join(settings)) for label, settings in stated.items())


def counts(results: Results) -> tuple[tuple[str, int], ...]:
    """How many rows got which verdict, in order of gravity, without the empty ones."""
    kinds = [row.verdict.kind for row in results.rows]
    return tuple((kind, kinds.count(kind)) for kind in GRAVITY if kind in kinds)


def intervals(results: Results) -> tuple[str, ...]:
    """The methods behind the intervals of the comparison, for its caption."""
    measurements = [row.measurement for row in results.rows if row.measurement]
    estimates = [e for m in measurements for e in (m.excess, *m.metrics.values()) if e]
    return tuple(unique([estimate.method for estimate in estimates]))


def evidence_title(evidence: Evidence) -> str:
    """The evidence level as the banner names it."""
    return {"none": "No pictures", "redacted": "Redacted", "full": "Full"}[evidence]
