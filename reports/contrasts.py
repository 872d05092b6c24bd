"""Contrasts: attacks against each other on the same photos."""

from itertools import combinations
from statistics import median

from fedaudit.core.measures import Estimate
from fedaudit.core.scenario import Study
from fedaudit.reports.results import Contrast
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import difference, outcomes
from fedaudit.stats import intervals

METRICS = {"ssim": True, "lpips": False, "reid": True}
"""Metrics of the contrasts, and whether higher is better for the attacker."""


def contrasts(study: Study, trials: Trials) -> tuple[Contrast, ...]:
    """Each pair of attacks on the same photos, for the first defense of each scenario."""
    pairs: list[Contrast] = []
    for scenario in study.scenarios:
        defense = scenario.defenses[0].label
        for a, b in combinations([attack.label for attack in scenario.attacks], 2):
            # The later attack of the study is the challenger: its advantage reads as positive.
            first, second = (trials.group(scenario.name, defense, name) for name in (b, a))
            if first and second:
                each = [_contrast(m, first, second) for m in METRICS if _has(m, first, second)]
                pairs += [contrast for contrast in each if contrast]
    return tuple(pairs)


def _has(metric: str, first: Group, second: Group) -> bool:
    if metric == "reid":
        return first.tested() and second.tested()
    return all(metric in s.metrics for g in (first, second) for s in g.scores().values())


def _contrast(metric: str, first: Group, second: Group) -> Contrast | None:
    ours, theirs = first.scores(), second.scores()
    gap: Estimate | None
    if metric == "reid":
        one, other = outcomes(ours, theirs)
        gap = intervals.paired_rate_difference(one, other, range(len(one))) if one else None
    else:
        gap = difference(ours, theirs, lambda score: score.metrics[metric])
    if gap is None:
        return None
    return Contrast(
        scenario=first.cell.scenario,
        defense=first.cell.defense,
        metric=metric,
        higher_is_better=METRICS[metric],
        first=first.cell.attack,
        second=second.cell.attack,
        difference=gap,
        seconds_first=median(t.seconds for t in first.trials),
        seconds_second=median(t.seconds for t in second.trials),
    )
