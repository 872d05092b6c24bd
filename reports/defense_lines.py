"""What each defense buys: one line a defense, under the strongest attack that met it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fedaudit.core.claims import worst
from fedaudit.core.measures import Rate, Utility
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.federation.utility import accuracy_difference
from fedaudit.reports.comparison import (
    ADAPTED,
    DefenseLine,
    Row,
    VerdictKind,
    met_by_adaptive,
    role_of,
    strongest,
)
from fedaudit.reports.frontier import marks
from fedaudit.reports.trials import Trials
from fedaudit.reports.unit_scores import outcomes
from fedaudit.reports.verdicts import standing_row
from fedaudit.stats import intervals


def defense_lines(
    study: Study,
    trials: Trials,
    rows: Sequence[Row],
    alike: Collection[tuple[str, str]] = (),
) -> tuple[DefenseLine, ...]:
    """A line for each scenario × defense, with paired differences and Holm's correction.

    The difference is against the scenario's undefended client, both under their strongest attack,
    on the photos that both have; its p-value is one-sided (the defense lowers the rate), corrected
    over all lines of the study. The strongest attack is chosen by the rate that is then reported,
    which flatters the attacker, not the defense. `alike` are scenarios and defenses of
    `trained_alike`.
    """
    lines = []
    for scenario in study.scenarios:
        mine = [row for row in rows if row.scenario == scenario.name]
        bare = next((d.label for d in scenario.defenses if d.name == "none"), None)
        beaten = {mark.defense: mark.dominated_by for mark in marks(mine)}
        for choice in scenario.defenses:
            rows_of_defense = [row for row in mine if row.defense == choice.label]
            against = [row for row in mine if row.defense == bare and choice.label != bare]
            line = _line(scenario, choice, rows_of_defense, _utility(mine, bare))
            beaten_by = beaten.get(choice.label)
            same = (scenario.name, choice.label) in alike
            role = role_of(study, choice)
            line = replace(line, dominated_by=beaten_by, role=role, same_training=same)
            lines.append(_compare(line, trials, strongest(rows_of_defense), strongest(against)))
    return _correct(lines)


def _line(
    scenario: Scenario, choice: Choice, rows: Sequence[Row], plain: Utility | None
) -> DefenseLine:
    top = strongest(rows)
    utility = next((row.utility for row in rows if row.utility), None)
    cosines = [row.worst_cosine for row in rows if row.worst_cosine is not None]
    difference = accuracy_difference(plain, utility) if plain and utility else None
    return DefenseLine(
        scenario=scenario.name,
        defense=choice.label,
        name=choice.name,
        settings=dict(choice.settings),
        attack=top.attack if top else None,
        adaptive=top.adaptive if top else None,
        measurement=top.measurement if top else None,
        met_by_adaptive=met_by_adaptive(rows),
        verdict=_gravest(rows),
        reid_blind=_rate(rows, is_adaptive=False),
        reid_adapted=_rate(rows, is_adaptive=True),
        worst_cosine=max(cosines, default=None),
        utility=utility,
        accuracy_lost=difference,
        claims=worst(row.claims for row in rows),
        dominated_by=None,
    )


def _gravest(rows: Sequence[Row]) -> VerdictKind:
    candidates = [row for row in rows if row.reid]
    return standing_row(candidates).verdict.kind if candidates else "NOT TESTED"


def _rate(rows: Sequence[Row], *, is_adaptive: bool) -> Rate | None:
    top = strongest([row for row in rows if (row.adaptive in ADAPTED) is is_adaptive])
    return top.reid if top else None


def _utility(rows: Sequence[Row], bare: str | None) -> Utility | None:
    return next((row.utility for row in rows if row.defense == bare and row.utility), None)


def _compare(line: DefenseLine, trials: Trials, own: Row | None, bare: Row | None) -> DefenseLine:
    if own is None or bare is None:
        return line
    with_it = trials.group(own.scenario, own.defense, own.attack)
    without = trials.group(bare.scenario, bare.defense, bare.attack)
    theirs, ours = outcomes(without.scores(), with_it.scores())
    if not ours:
        return line
    every = range(len(ours))
    return replace(
        line,
        reduction=intervals.paired_rate_difference(theirs, ours, every),
        p_value=intervals.paired_p_value(theirs, ours, every),
    )


def _correct(lines: Sequence[DefenseLine]) -> tuple[DefenseLine, ...]:
    """Holm over all lines that were compared."""
    p_values = iter(intervals.holm([x.p_value for x in lines if x.p_value is not None]))
    return tuple(x if x.p_value is None else replace(x, p_holm=next(p_values)) for x in lines)


def sweeps(lines: Sequence[DefenseLine]) -> Mapping[tuple[str, str, str], tuple[DefenseLine, ...]]:
    """Lines of one defense in which one number varies, by (scenario, defense, setting).

    Ordered by the setting; at least three of them. What else is set is the same in all.
    """
    families: dict[tuple[str, str], list[DefenseLine]] = {}
    for line in lines:
        families.setdefault((line.scenario, line.name), []).append(line)
    curves: dict[tuple[str, str, str], tuple[DefenseLine, ...]] = {}
    for (scenario, name), family in families.items():
        for setting in sorted({key for line in family for key in line.settings}):
            swept = [x for x in family if _is_number(x.settings.get(setting))]
            rests = [{k: v for k, v in x.settings.items() if k != setting} for x in swept]
            alike = [x for x, rest in zip(swept, rests, strict=True) if rest == rests[0]]
            values = {x.settings[setting] for x in alike}
            if len(values) >= 3:
                order = sorted(alike, key=lambda x: float(x.settings[setting]))
                curves[scenario, name, setting] = tuple(order)
    return curves


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
