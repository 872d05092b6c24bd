"""What stands in each cell of a comparison, and in its small lines."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fedaudit.core import claims
from fedaudit.core.inference import Membership
from fedaudit.core.measures import Estimate, Rate, Utility
from fedaudit.reports import text
from fedaudit.reports.comparison import DefenseLine, Exposure, Row, Verdict, VerdictKind
from fedaudit.reports.guarantees import NOT_STATED, UNSTATED, of_training
from fedaudit.reports.membership_lines import ALPHA, is_demonstrated, recall, strongest_score
from fedaudit.reports.plain_names import attack_name, defense_name, plain_text
from fedaudit.reports.text import ABSENT, number, percent, points
from fedaudit.study.canary_result import ShownLine


@dataclass(frozen=True)
class Scene:
    """What a cell depends on beside its line.

    Attributes:
        bare: What the undefended federation is worth.
        chance: Rank-1 by guessing among the gallery's people; None where their number is unknown.
        membership, shown: By label of the defense.
        alike: Labels of defenses under which the federation trained as undefended.
    """

    bare: Utility | None = None
    chance: float | None = None
    membership: Mapping[str, Membership] = field(default_factory=dict)
    shown: Mapping[str, ShownLine] = field(default_factory=dict)
    alike: Collection[str] = ()


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


def rate(value: Rate | None) -> Cell:
    """A share with its exact interval and what was counted."""
    if value is None:
        return Cell()
    notes = (f"{text.rate_range(value)} %", text.counted(value))
    return Cell(percent(value.value), notes, f"{value.hits}/{value.n}")


def estimate(value: Estimate | None, digits: int) -> Cell:
    """A mean with its interval, to so many digits."""
    if value is None:
        return Cell()
    notes = (text.estimate_range(value, digits), f"n = {value.n}")
    return Cell(number(value.value, digits), notes)


def _points(value: Estimate | None, *notes: str) -> Cell:
    """A difference of rates."""
    if value is None:
        return Cell()
    return Cell(points(value), (text.points_range(value), f"n = {value.n}", *notes))


def p_value(value: float | None) -> Cell:
    """A probability; short in a plain table."""
    return Cell(text.p_value(value), brief=ABSENT if value is None else f"{value:.2g}")


def defense(x: DefenseLine, _: Scene) -> Cell:
    """The defense, its role, and the strongest attack on it."""
    how = f", adaptive: {x.adaptive}" if x.adaptive else ""
    notes = (*_role(x), f"{attack_name(x.attack or ABSENT)}{how}")
    return Cell(defense_name(x.defense), notes, x.defense)


def attack(x: Row, _: Scene) -> Cell:
    """The defense, its role, and the attack of this line."""
    return Cell(defense_name(x.defense), (*_role(x), attack_name(x.attack)))


def _role(x: Row | DefenseLine) -> tuple[str, ...]:
    """What the defense is in the study, where it is not one of several alternatives."""
    return () if x.role == "alternative" else (x.role,)


def gravest(x: DefenseLine, _: Scene) -> Cell:
    """The verdict under the strongest attack; whether any attack knew the defense."""
    unmet = x.reid and not x.met_by_adaptive
    notes = ("met by no attack that knows it",) if unmet else ()
    return Cell(notes=notes, brief=x.verdict, verdict=x.verdict)


def verdict(x: Row, _: Scene) -> Cell:
    """The verdict on this line, and what would settle it."""
    word: Verdict = x.verdict
    notes = []
    if x.measurement is None or (x.model_state and word.kind == "NOT TESTED"):
        notes.append(word.sentence)
    if word.targets_needed is not None:
        notes.append(f"{word.targets_needed} {x.reid.unit if x.reid else ''} would settle it")
    elif word.reason:
        notes.append(word.reason)
    return Cell(notes=tuple(notes), verdict=word.kind)


def reid(x: Row | DefenseLine, _: Scene) -> Cell:
    """Whom the judge recognizes, first judge first, with the prior's own rate drawn beside it."""
    m = x.measurement
    if m is None or m.reid is None:
        return Cell()
    cell = rate(m.reid)
    unknown = "match somebody in the gallery; whom the update is of is not known"
    low, high = (percent(x, unit=False) for x in (m.reid.low, m.reid.high))
    brief = f"{cell.brief} ({low}–{high} %)"
    notes = (*cell.notes, unknown) if m.searched else cell.notes
    notes = (*notes, *(text.second_opinion(label, other) for label, other in m.others.items()))
    return Cell(cell.value, notes, brief, rate=m.reid, prior=m.prior)


def prior(x: Exposure, _: Scene) -> Cell:
    """Whom the judge recognizes in what the prior makes by itself."""
    return rate(x.measurement.prior if x.measurement else None)


def reduction(x: DefenseLine, _: Scene) -> Cell:
    """How much rarer people are recognized than without a defense."""
    return _points(x.reduction, f"p = {text.p_value(x.p_holm)}")


def excess(x: Row | DefenseLine, _: Scene) -> Cell:
    """How much more often people are recognized than in what the prior makes by itself."""
    return _points(x.measurement.excess if x.measurement else None)


def worst(x: Row | DefenseLine, _: Scene) -> Cell:
    """The highest cosine to the right person."""
    return Cell(number(x.worst_cosine))


def first(x: Row | Exposure, _: Scene) -> Cell:
    """How often the right person is the nearest."""
    return rate(x.measurement.rank1 if x.measurement else None)


def rank1(x: Row, scene: Scene) -> Cell:
    """The same, beside guessing."""
    cell = first(x, scene)
    return Cell(cell.value, (*cell.notes, f"chance 1/N = {percent(scene.chance)}"))


def labels(x: Row, _: Scene) -> Cell:
    """The share of labels that the attack inferred rightly."""
    return Cell(percent(x.measurement.labels if x.measurement else None))


def effort(x: Row, _: Scene) -> Cell:
    """What the attack took, and whether it had converged."""
    m = x.measurement
    if m is None or m.effort is None:
        return Cell(text.seconds(m.seconds if m else None))
    steps = f"{m.effort.steps:,} steps" + (
        f" × {m.effort.restarts} starts" if m.effort.restarts > 1 else ""
    )
    notes = (m.effort.words,) if m.effort.closed_form else (steps, m.effort.words)
    return Cell(text.seconds(m.seconds), notes)


def epsilon(x: Row | DefenseLine, _: Scene) -> Cell:
    """What is claimed of differential privacy."""
    if not x.claims:
        if x.defense in UNSTATED:
            return Cell(NOT_STATED, brief=ABSENT)
        return Cell(claims.HEURISTIC)
    notes = [f"{claims.in_words(claim)} ({claims.origin(claim)})" for claim in x.claims]
    whole = x.utility.training_claims if x.utility else ()
    notes += [f"all rounds of the training: {claims.in_words(claim)}" for claim in whole]
    value = plain_text(claims.in_short(x.claims))
    brief = value + of_training(x.claims, x.utility)
    return Cell(value, tuple(map(plain_text, notes)), brief)


def shown(x: Row | DefenseLine, scene: Scene) -> Cell:
    """What canaries show of ε at least."""
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


def members(x: DefenseLine, scene: Scene) -> Cell:
    """Whose photos were told to be in the data."""
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
    notes = (f"{what}, at {percent(fpr)} false positives", f"AUC {number(score.auc)}", above)
    cell = rate(tpr)
    brief = f"{cell.brief or ABSENT}, AUC {number(score.auc)}"
    return Cell(cell.value, (*cell.notes, *notes), brief, rate=tpr)


def properties(x: DefenseLine, scene: Scene) -> Cell:
    """The property whose order among clients was told best."""
    line = scene.membership.get(x.defense)
    if line is None or not line.properties:
        return Cell()
    best = min(line.properties, key=lambda one: (one.p_adjusted, -one.correlation))
    above = sum(one.p_adjusted <= ALPHA for one in line.properties)
    told = f"{above} of {len(line.properties)} above chance"
    order = number(best.correlation)
    return Cell(order, brief=f"{told}; {best.property} {order}")


def dominator(x: DefenseLine, _: Scene) -> Cell:
    """A defense that is at least as good in all that was measured, and better in some."""
    name = x.dominated_by
    return Cell(defense_name(name), brief=name) if name else Cell()


def holm(x: Row, _: Scene) -> Cell:
    """The test on identity, adjusted for all lines."""
    return p_value(x.measurement.p_holm if x.measurement else None)
