"""How much an attack was given, and whether more of it would have helped."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from statistics import median

from fedaudit.core.measures import Rate
from fedaudit.core.reconstruction import SearchedBy
from fedaudit.core.trial import Trial
from fedaudit.reports.measurement import Effort
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import rate_of

# Chosen by benchmarks/convergence.py on ORL; its figures are of other faces.
ENOUGH = 0.1
"""Gain of the second half of the steps up to which a search counts as converged."""
SOLVED = 0.01
"""Objective, as a share of what the search began with, that leaves nothing to explain."""
LISTED = re.compile(r"(?P<name>'[^']*'|\"[^\"]*\")(?: and (?P<more>\d+) more)? (?P<rest>.+)")
"""A sentence of `Trial.unused` that begins with parameters: the first, and how many more."""


def effort(group: Group, halved: Group) -> Effort:
    """The effort behind a line's trials; `halved` are those with half of the steps."""
    whole = {(t.cell.target, t.cell.seed): t for t in group.trials}
    pairs = [(whole[place], t) for t in halved.trials if (place := _place(t)) in whole]
    gains = [gain for full, half in pairs if (gain := gain_of(full, half)) is not None]
    return Effort(
        steps=round(median(t.iterations for t in group.trials)),
        restarts=max(t.restarts for t in group.trials),
        evaluations=round(median(t.gradient_evaluations for t in group.trials)),
        closed_form=all(t.closed_form for t in group.trials),
        tested=len(gains),
        converged=sum(gain <= ENOUGH for gain in gains),
        gain=max(gains, default=None),
        ways=ways(group),
    )


def ways(group: Group) -> dict[SearchedBy, Rate | None]:
    """By what a line's images were searched for, and how many were re-identified of each kind."""
    by: defaultdict[SearchedBy, list[Trial]] = defaultdict(list)
    for trial in group.trials:
        by[trial.searched_by].append(trial)
    groups = {way: Group(tuple(trials)) for way, trials in sorted(by.items())}
    return {way: rate_of(one) if one.tested() else None for way, one in groups.items()}


def unused(trials: Trials) -> tuple[str, ...]:
    """What the attacks could not use of updates or local training: a sentence an attack and cause.

    It says how many parameters a cause concerned at least and at most, and under which defenses.
    """
    audited: defaultdict[str, set[str]] = defaultdict(set)
    counts: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    places: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for trial in trials.all:
        if trial.cell.role != "audit":
            continue
        audited[trial.cell.attack].add(trial.cell.defense)
        for what in trial.unused:
            listed = LISTED.fullmatch(what)
            cause = trial.cell.attack, listed["rest"] if listed else what
            places[cause][trial.cell.defense] = None
            if listed:
                counts[cause].setdefault(1 + int(listed["more"] or 0), listed["name"])
    return tuple(
        f"{attack_name(attack)} did without something: {_listed(counts[attack, what])}{what}"
        f"{_under(defenses, audited[attack])}."
        for (attack, what), defenses in places.items()
    )


def _listed(counts: Mapping[int, str]) -> str:
    """How many parameters, with one by name; "" of a cause that lists none."""
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    if most == 1:
        return f"{counts[1]} "
    span = f"{most}" if least == most else f"{least} to {most}"
    return f"{span} parameters, such as {counts[most]}, "


def _under(defenses: Collection[str], audited: Collection[str]) -> str:
    """Under which of the defenses that an attack met; "" where it met one only."""
    if len(audited) == 1:
        return ""
    if len(defenses) == len(audited):
        return " (under every defense)"
    return f" (under {', '.join(map(defense_name, defenses))})"


def gain_of(full: Trial, half: Trial) -> float | None:
    """What the second half of the steps took off the objective, as a share; in [0, 1].

    Of the objective that half of the steps had left; or of all that the search ever took off, where
    that share is greater: under noise there is little to take off, and most of it may be missing.
    0 where next to nothing is left to explain. None where an objective was not reported.
    """
    before, after = half.objective, full.objective
    if math.isnan(before) or math.isnan(after):
        return None
    start = full.history[0][1] if full.history else math.nan
    if after <= SOLVED * start:
        return 0.0
    fallen = max(0.0, before - after)
    shares = [fallen / before if before > 0 else 0.0]
    if start > after:
        shares.append(min(1.0, fallen / (start - after)))
    return max(shares)


def _place(trial: Trial) -> tuple[int, int]:
    return trial.cell.target, trial.cell.seed
