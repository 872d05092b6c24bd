"""How much an attack was given, and whether more of it would have helped."""

import math
from collections import defaultdict
from statistics import median

from fedaudit.core.measures import Rate
from fedaudit.core.reconstruction import SearchedBy
from fedaudit.core.trial import Trial
from fedaudit.reports.measurement import Effort
from fedaudit.reports.plain_names import attack_name
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import rate_of

# Chosen by benchmarks/convergence.py on ORL; its figures are of other faces.
ENOUGH = 0.1
"""Gain of the second half of the steps up to which a search counts as converged."""
SOLVED = 0.01
"""Objective, as a share of what the search began with, that leaves nothing to explain."""


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
    """What the attacks could not use of updates or local training, a sentence each."""
    sentences = (
        f"{attack_name(trial.cell.attack)} did without something: {what}."
        for trial in trials.all
        if trial.cell.role == "audit"
        for what in trial.unused
    )
    return tuple(dict.fromkeys(sentences))


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
