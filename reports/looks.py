"""What a study that stops where its verdicts are decided may say after each look.

Rates, their excess over prior-only and the test on identity allow for every look at a line
(`fedaudit.stats.sequential`). So a clean word takes an interval that holds although one might have
stopped earlier, and a leak that was noticed early is no lucky look. Other intervals, such as of
SSIM, decide nothing and are as usual.
"""

from collections.abc import Collection
from dataclasses import replace

from fedaudit.core.measures import IdentityTest, Rate
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.trial import Cell
from fedaudit.reports.measurement import Measurement
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import outcomes, unit_of
from fedaudit.stats.intervals import paired_rate_difference
from fedaudit.stats.sequential import looks, repeated_interval, shares


def targets_seen(group: Group, most: int, ended: Collection[int] = ()) -> int:
    """How many targets of a line its last complete look saw; `ended` are targets that failed."""
    past = 1 + max((*(t.cell.target for t in group.trials), *ended), default=-1)
    return max((n for n in looks(most) if n <= past), default=0)


def looked_at(study: Study, trials: Trials) -> Trials:
    """The trials that the last complete look of each line saw; all in a study without looks."""
    if not study.sequential:
        return trials
    seen = {
        (line := (scenario.name, defense.label, attack.label)): targets_seen(
            trials.group(*line), scenario.targets
        )
        for scenario in study.scenarios
        for defense in scenario.defenses
        for attack in scenario.attacks
    }
    return Trials(tuple(t for t in trials.all if t.cell.target < seen.get(_line(t.cell), 1 << 62)))


def _line(cell: Cell) -> tuple[str, str, str]:
    return cell.scenario, cell.defense, cell.attack


def test_at_look(test: IdentityTest, group: Group, scenario: Scenario) -> IdentityTest:
    """The test of what a look saw, with p-values that allow for all looks.

    Each look has a share of the error level, and the shares add up to 1: of as small a p-value at
    any of the looks the probability is no more than the p-value itself.
    """
    share = _share(group, scenario.targets)

    def allow(p: float) -> float:
        return min(1.0, p / share)

    over = None if test.over_control is None else allow(test.over_control)
    return replace(
        test, p_value=allow(test.p_value), smallest=allow(test.smallest), over_control=over
    )


def measurement_at_look(
    measurement: Measurement, group: Group, prior: Group, scenario: Scenario
) -> Measurement:
    """The measurement of a line with intervals that hold at all looks at once."""
    excess = measurement.excess
    if excess:
        ours, theirs = outcomes(group.scores(), prior.scores())
        level = 0.05 * _share(group, scenario.targets)
        excess = paired_rate_difference(ours, theirs, range(len(ours)), confidence=1 - level)
    return replace(
        measurement,
        reid=_repeated(measurement.reid, group, scenario.targets),
        prior=_repeated(measurement.prior, prior, scenario.targets),
        excess=excess,
    )


def first_share(targets: int) -> float:
    """What the first look has of the error level: no look has less."""
    return min(shares(len(looks(targets))))


def _share(group: Group, most: int) -> float:
    """What the look that these trials fill, or are filling, has of the error level."""
    past, of = 1 + max(trial.cell.target for trial in group.trials), looks(most)
    return shares(len(of))[sum(n < past for n in of)]


def _repeated(rate: Rate | None, group: Group, most: int) -> Rate | None:
    if rate is None:
        return None
    past, of = 1 + max(trial.cell.target for trial in group.trials), looks(most)
    counts = [rate.n]
    for n in reversed([n for n in of if n < past]):
        before = Group(tuple(t for t in group.trials if t.cell.target < n))
        # A later update may join two that were apart, as people of both are in it.
        counts.insert(0, min(counts[0], len(set(unit_of(before.scores()).values()))))
    low, high = repeated_interval(rate.hits, counts, of)
    return replace(rate, low=low, high=high)
