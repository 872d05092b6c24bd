"""The columns of every comparison, each declared once: for the page, Markdown and terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fedaudit.core import claims
from fedaudit.core.inference import Membership
from fedaudit.core.measures import Estimate, MetricFacts, Rate, Utility
from fedaudit.federation.utility import accuracy_difference
from fedaudit.reports import text
from fedaudit.reports.comparison import DefenseLine, Exposure, Row, Verdict, VerdictKind
from fedaudit.reports.membership_lines import ALPHA, is_demonstrated, recall, strongest_score
from fedaudit.reports.plain_names import attack_name, defense_name, plain_text
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, number, percent, points, signed, visible
from fedaudit.study.canary_result import ShownLine

T_contra = TypeVar("T_contra", contravariant=True)

RATE = "%, 0–100 [CI], n"
ACCURACY = "%, 50 is chance, to 100 [CI]"
LOST = "points, against none, −100–100 [CI]"
SHOWN = "at least, 0 and up; 95 % confidence"
UNSTATED = ("none", "recorded")
"""Labels of what is no defense of ours: the undefended client, and a recorded one."""


@dataclass(frozen=True)
class Scene:
    """What a cell depends on beside its line.

    Attributes:
        bare: What the undefended federation is worth.
        chance: Rank-1 by guessing among the gallery's people; None where their number is unknown.
        membership, shown: By label of the defense.
    """

    bare: Utility | None = None
    chance: float | None = None
    membership: Mapping[str, Membership] = field(default_factory=dict)
    shown: Mapping[str, ShownLine] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table.

    Attributes:
        value: The number.
        notes: Small lines below it, on the page.
        brief: The whole of it in a plain table; the value by default.
        verdict: Shown as a badge instead of the value.
        rate, prior: Drawn below as a bar from 0 to 100 %.
    """

    value: str = ABSENT
    notes: tuple[str, ...] = ()
    brief: str = ""
    verdict: VerdictKind | None = None
    rate: Rate | None = None
    prior: Rate | None = None


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
        return _estimate(values.get(facts.name), facts.digits)

    title = f"{facts.title} {facts.arrow}"
    return Column(cell, title, f"{facts.scale} [CI], n", facts.title)


def of_defenses(metrics: Sequence[MetricFacts]) -> tuple[Column[DefenseLine], ...]:
    """Columns of the comparison of defenses, each under the strongest attack on it."""
    return (
        Column(lambda x, _: Cell(x.scenario), name="scenario"),
        Column(_defense, "Defense", "role; strongest attack", "defense"),
        Column(lambda x, _: Cell(x.role), name="role"),
        Column(lambda x, _: Cell(x.attack or ABSENT), name="strongest attack"),
        Column(lambda x, _: Cell(x.adaptive or ABSENT), name="adaptive"),
        Column(_gravest, "Verdict"),
        Column(_reid, "Re-identification ↓", f"{RATE}; bar 0–100 %", "re-id"),
        Column(lambda x, _: _rate(x.reid_blind), "Blind attack ↓", RATE, "blind"),
        Column(lambda x, _: _rate(x.reid_adapted), "Adapted attack ↓", RATE, "adapted"),
        Column(_reduction, "Reduction ↑", "points, −100–100 [CI], n; Holm p"),
        Column(lambda x, _: _p_value(x.p_holm), name="Holm p"),
        Column(_excess, "Excess over prior ↓", "points, −100–100 [CI], n", "excess"),
        Column(_worst, "Worst cosine ↓", "no unit, −1–1", "worst cosine"),
        *map(metric, metrics),
        Column(_accuracy, "Verification ↑", ACCURACY, "accuracy"),
        Column(_without_training, name="untrained"),
        Column(_central, name="central"),
        Column(_accuracy_loss, "Accuracy lost ↓", LOST, "lost"),
        Column(_overhead, "Overhead ↓", "times, 0 and up; 1 is none", "overhead"),
        Column(_kilobytes, "Sent ↓", "kB a client a round, 0 and up", "kB sent"),
        Column(_epsilon, "ε claimed ↓", "0 and up; δ, unit, rounds, scope", "ε claimed"),
        Column(_shown, "ε shown ↓", SHOWN, "ε shown"),
        Column(_members, "Members recognized ↓", RATE, "members"),
        Column(_properties, name="properties"),  # on the page they have a table of their own
        Column(_dominator, "Dominated by", name="dominated by"),
    )


def of_rows(metrics: Sequence[MetricFacts]) -> tuple[Column[Row], ...]:
    """Columns of the comparison of attacks: every attack on every defense."""
    return (
        Column(_attack, "Defense", "role; attack"),
        Column(_verdict, "Verdict"),
        Column(_reid, "Re-identification ↓", f"{RATE}; bar 0–100 %"),
        Column(_excess, "Excess over prior ↓", "points, −100–100 [CI], n"),
        Column(_worst, "Worst cosine ↓", "no unit, −1–1"),
        *map(metric, metrics),
        Column(_rank1, "Rank-1 ↓", RATE),
        Column(_labels, "Labels found ↓", "%, 0–100"),
        Column(_accuracy, "Verification ↑", ACCURACY),
        Column(_accuracy_loss, "Accuracy lost ↓", LOST),
        Column(_effort, "Attack effort ↑", "CPU s a target, median, 0 and up; steps; convergence"),
        Column(_training, "Training time ↓", "s, 0 and up"),
        Column(_epsilon, "ε claimed ↓", "0 and up; δ, unit, rounds, scope"),
        Column(_shown, "ε shown ↓", SHOWN),
        Column(lambda x, _: Cell(x.adaptive if x.measurement else ABSENT), "Adaptive attack"),
        Column(_holm, "Holm p", "0–1; small: excess established"),
    )


def of_exposures(metrics: Sequence[MetricFacts]) -> tuple[Column[Exposure], ...]:
    """Columns of the exposure map: what each thing that was sent gave away."""
    return (
        Column(lambda x, _: _rate(x.reid), "Re-identification ↓", RATE),
        Column(_prior, "Prior only ↓", RATE),
        Column(_first, "Rank-1 ↓", RATE),
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
    return Scene(bare, 1 / count if count else None, members, bounds)


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


def _rate(rate: Rate | None) -> Cell:
    if rate is None:
        return Cell()
    notes = (f"{text.rate_range(rate)} %", text.counted(rate))
    return Cell(percent(rate.value), notes, f"{rate.hits}/{rate.n}")


def _estimate(value: Estimate | None, digits: int) -> Cell:
    if value is None:
        return Cell()
    notes = (text.estimate_range(value, digits), f"n = {value.n}")
    return Cell(number(value.value, digits), notes)


def _points(value: Estimate | None, *notes: str) -> Cell:
    """A difference of rates."""
    if value is None:
        return Cell()
    return Cell(points(value), (text.points_range(value), f"n = {value.n}", *notes))


def _p_value(value: float | None) -> Cell:
    return Cell(text.p_value(value), brief=ABSENT if value is None else f"{value:.2g}")


def _defense(x: DefenseLine, _: Scene) -> Cell:
    how = f", adaptive: {x.adaptive}" if x.adaptive else ""
    notes = (*_role(x), f"{attack_name(x.attack or ABSENT)}{how}")
    return Cell(defense_name(x.defense), notes, x.defense)


def _attack(x: Row, _: Scene) -> Cell:
    return Cell(defense_name(x.defense), (*_role(x), attack_name(x.attack)))


def _role(x: Row | DefenseLine) -> tuple[str, ...]:
    """What the defense is in the study, where it is not one of several alternatives."""
    return () if x.role == "alternative" else (x.role,)


def _gravest(x: DefenseLine, _: Scene) -> Cell:
    unmet = x.reid and not x.met_by_adaptive
    return Cell(notes=("met by no attack that knows it",) if unmet else (), verdict=x.verdict)


def _verdict(x: Row, _: Scene) -> Cell:
    verdict: Verdict = x.verdict
    notes = []
    if x.measurement is None or (x.model_state and verdict.kind == "NOT TESTED"):
        notes.append(verdict.sentence)
    if verdict.targets_needed is not None:
        notes.append(f"{verdict.targets_needed} {x.reid.unit if x.reid else ''} would settle it")
    elif verdict.reason:
        notes.append(verdict.reason)
    return Cell(notes=tuple(notes), verdict=verdict.kind)


def _reid(x: Row | DefenseLine, _: Scene) -> Cell:
    m = x.measurement
    if m is None or m.reid is None:
        return Cell()
    cell = _rate(m.reid)
    unknown = "match somebody in the gallery; whom the update is of is not known"
    brief = f"{cell.brief} ({100 * m.reid.low:.0f}–{100 * m.reid.high:.0f} %)"
    notes = (*cell.notes, unknown) if m.searched else cell.notes
    notes = (*notes, *(text.second_opinion(label, other) for label, other in m.others.items()))
    return Cell(cell.value, notes, brief, rate=m.reid, prior=m.prior)


def _prior(x: Exposure, _: Scene) -> Cell:
    return _rate(x.measurement.prior if x.measurement else None)


def _reduction(x: DefenseLine, _: Scene) -> Cell:
    return _points(x.reduction, f"p = {text.p_value(x.p_holm)}")


def _excess(x: Row | DefenseLine, _: Scene) -> Cell:
    return _points(x.measurement.excess if x.measurement else None)


def _worst(x: Row | DefenseLine, _: Scene) -> Cell:
    return Cell(number(x.worst_cosine))


def _first(x: Row | Exposure, _: Scene) -> Cell:
    return _rate(x.measurement.rank1 if x.measurement else None)


def _rank1(x: Row, scene: Scene) -> Cell:
    cell = _first(x, scene)
    return Cell(cell.value, (*cell.notes, f"chance 1/N = {percent(scene.chance)}"))


def _labels(x: Row, _: Scene) -> Cell:
    return Cell(percent(x.measurement.labels if x.measurement else None))


def _accuracy(x: Row | DefenseLine, _: Scene) -> Cell:
    u = x.utility
    if u is None:
        return Cell()
    trainings = f"{len(u.accuracies)} training" + ("s" if len(u.accuracies) > 1 else "")
    notes = [
        f"{text.percent_range(u.accuracy)} %",
        f"{u.accuracy.n} people, {trainings}",
        f"untrained {percent(u.untrained.value)}",
        f"gain {points(u.gain)} {text.points_range(u.gain)}",
    ]
    if not u.helps:
        notes.append("no gain over the untrained network is shown")
    if u.central:
        notes.append(f"central training {percent(u.central.value)}")
    notes += [f"TAR {percent(tar)} at FAR {far}" for far, tar in sorted(u.tar_at_far.items())]
    return Cell(percent(u.accuracy.value), tuple(notes), _share(u.accuracy))


def _without_training(x: DefenseLine, _: Scene) -> Cell:
    return Cell(brief=_share(x.utility.untrained) if x.utility else ABSENT)


def _central(x: DefenseLine, _: Scene) -> Cell:
    return Cell(brief=_share(x.utility.central) if x.utility else ABSENT)


def _share(value: Estimate | None) -> str:
    return ABSENT if value is None else f"{percent(value.value)} {text.percent_range(value)}"


def _accuracy_loss(x: Row | DefenseLine, scene: Scene) -> Cell:
    if scene.bare is None or x.utility is None:
        return Cell()
    loss = accuracy_difference(scene.bare, x.utility)
    if loss is None:
        return Cell()
    return Cell(signed(100 * loss.value, 1), (text.points_range(loss),))


def _overhead(x: DefenseLine, _: Scene) -> Cell:
    if x.utility is None or x.utility.overhead is None:
        return Cell()
    times = number(x.utility.overhead)
    return Cell(times, (f"{number(x.utility.step_seconds)} s",), f"{times} ×")


def _kilobytes(x: DefenseLine, _: Scene) -> Cell:
    if x.utility is None or not x.utility.bytes_sent:
        return Cell()
    size, plainly = x.utility.bytes_sent / 1000, x.utility.plain_bytes_sent
    notes = (f"{number(plainly / 1000, 0)} undefended",) if plainly else ()
    return Cell(number(size, 0), notes, f"{size:,.0f}")


def _effort(x: Row, _: Scene) -> Cell:
    m = x.measurement
    if m is None or m.effort is None:
        return Cell(text.seconds(m.seconds if m else None))
    steps = f"{m.effort.steps:,} steps" + (
        f" × {m.effort.restarts} starts" if m.effort.restarts > 1 else ""
    )
    notes = (m.effort.words,) if m.effort.closed_form else (steps, m.effort.words)
    return Cell(text.seconds(m.seconds), notes)


def _training(x: Row, _: Scene) -> Cell:
    return Cell(text.seconds(x.utility.seconds if x.utility else None))


def _epsilon(x: Row | DefenseLine, _: Scene) -> Cell:
    if not x.claims:
        if x.defense in UNSTATED:
            return Cell("none stated", brief=ABSENT)
        return Cell(claims.HEURISTIC)
    notes = [f"{claims.in_words(claim)} ({claims.origin(claim)})" for claim in x.claims]
    whole = x.utility.training_claims if x.utility else ()
    notes += [f"all rounds of the training: {claims.in_words(claim)}" for claim in whole]
    return Cell(plain_text(claims.in_short(x.claims)), tuple(map(plain_text, notes)))


def _shown(x: Row | DefenseLine, scene: Scene) -> Cell:
    line = scene.shown.get(x.defense)
    if line is None or line.audit is None:
        why = f"not tested: {line.reason}" if line else "not tested"
        return Cell(ABSENT, (why,))
    epsilon = line.audit.shown
    notes = [
        f"if Gaussian ≥ {max(epsilon.gaussian, epsilon.f_dp):.2f}",
        f"at δ = {epsilon.delta:g}, n = {epsilon.canaries:,}",
    ]
    if line.audit.faulty:
        notes.append("not what is claimed")
    return Cell(f"≥ {epsilon.any_mechanism:.2f}", tuple(notes))


def _members(x: DefenseLine, scene: Scene) -> Cell:
    line = scene.membership.get(x.defense)
    if line is None:
        return Cell(notes=("not tested",))
    score = strongest_score(line, "person") or strongest_score(line, "image")
    if score is None:
        return Cell(notes=(f"not tested: {line.reason}",))
    fpr, tpr = recall(score)
    above = "above chance" if is_demonstrated(line) else "nothing above chance"
    if not any(map(is_demonstrated, scene.membership.values())):
        above += "; nor under any other defense or none, so that this says little"
    what = "people" if score.level == "person" else "photos"
    notes = (f"{what}, at {percent(fpr)} false positives", f"AUC {score.auc:.2f}", above)
    cell = _rate(tpr)
    brief = f"{cell.brief or ABSENT}, AUC {score.auc:.2f}"
    return Cell(cell.value, (*cell.notes, *notes), brief, rate=tpr)


def _properties(x: DefenseLine, scene: Scene) -> Cell:
    """The property whose order among clients was told best."""
    line = scene.membership.get(x.defense)
    if line is None or not line.properties:
        return Cell()
    best = min(line.properties, key=lambda one: (one.p_adjusted, -one.correlation))
    above = sum(one.p_adjusted <= ALPHA for one in line.properties)
    told = f"{above} of {len(line.properties)} above chance"
    return Cell(f"{best.correlation:.2f}", brief=f"{told}; {best.property} {best.correlation:.2f}")


def _dominator(x: DefenseLine, _: Scene) -> Cell:
    name = x.dominated_by
    return Cell(defense_name(name), brief=name) if name else Cell()


def _holm(x: Row, _: Scene) -> Cell:
    return _p_value(x.measurement.p_holm if x.measurement else None)
