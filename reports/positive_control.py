"""The positive control: attacks must rebuild what nothing protects, or the run is invalid."""

from fedaudit.core.measures import Estimate
from fedaudit.core.scenario import Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.trial import POSITIVE
from fedaudit.reports.comparison import Row
from fedaudit.reports.effort import effort
from fedaudit.reports.identity_tests import ALPHA, group_test
from fedaudit.reports.measurement import Effort
from fedaudit.reports.power import POWER, other_ways
from fedaudit.reports.results import Control
from fedaudit.reports.text import NBSP, number, percent, signed
from fedaudit.reports.trials import Group, Trials
from fedaudit.reports.unit_scores import difference, outcomes, rate_of
from fedaudit.reports.verdicts import rate_text
from fedaudit.stats import intervals

MARGIN = 0.1
"""SSIM over prior-only that counts on a recorded run, whose control has few faces: by chance alone
all of them may lie on one side, by hundredths."""


def positive_control(
    study: Study, trials: Trials, rows: tuple[Row, ...], source: SourceFacts = COMPLETE
) -> Control:
    """Whether any attack rebuilds what nothing protects: the pipeline must be able to see a leak.

    Judged by SSIM, not by re-identification: a run with few targets, or faces too small to be told
    apart, must still show it.

    Of a simulated study the undefended rows with one image say so; of a recorded run, steps that
    the auditor made itself from what the server had sent.
    """
    if source.positive:
        return _of_recorded(study, trials, source)
    name = "positive (undefended, batch 1: the attack must succeed)"
    requirement = "SSIM above the prior-only control's, by an interval that excludes 0"
    labels = {c.label for s in study.scenarios for c in s.defenses if c.name == "none"}
    lines = [row for row in rows if row.defense in labels and row.batch_size == 1]
    gains = [
        (gain.low, gain, m.ssim.value, row)
        for row in lines
        if (m := row.measurement)
        and m.ssim
        and (gain := _gain(trials, row.scenario, row.defense, row.attack))
    ]
    if not gains:
        return Control(name, "all", "no undefended row with batch 1", requirement, None)
    _, gain, ssim, best = max(gains, key=lambda item: item[0])
    outcome = f"SSIM {number(ssim)} by {best.attack}, {_over(gain)}"
    # One target has no interval, and that of two is twelve errors wide: neither held nor failed.
    if gain.n < 2 or (gain.n == 2 and gain.low <= 0 < gain.value):
        few = "one target decides" if gain.n < 2 else "two targets decide"
        return Control(name, best.scenario, f"{outcome}; {few} nothing", requirement, None)
    return Control(name, best.scenario, outcome, requirement, gain.low > 0)


def succeeds(study: Study, trials: Trials, attack: str) -> bool | None:
    """Whether an attack of a recorded run rebuilds what nothing protects; None if not tried."""
    if not study.scenarios:
        return None
    first = study.scenarios[0]
    gain = _gain(trials, first.name, first.defenses[0].label, attack, control=True)
    return None if gain is None else gain.low > MARGIN


def lacks_power(
    study: Study, trials: Trials, attack: str, ceiling: float | None, searched: Effort | None
) -> str:
    """Why an attack of a recorded run that finds nobody says nothing; "" where it says something.

    The control is the auditor's own: known faces, trained on as the clients trained, no defense;
    searched for in the same ways as the recorded updates (`searched`).
    """
    first = study.scenarios[0]
    place = (first.name, first.defenses[0].label, attack)
    group, prior = (trials.group(*place, role) for role in POSITIVE)
    if not group.tested() or not prior.tested():
        return "whether the attack re-identifies known faces without a defense was not tried"
    rate, test = rate_of(group), group_test(group, by_lot=True)
    ours, theirs = outcomes(group.scores(), prior.scores())
    above = intervals.paired_rate_difference(ours, theirs, range(len(ours))).low > 0
    finding = f"of known faces without a defense it re-identifies {rate_text(rate)}"
    if not above and (test is None or test.p_value > ALPHA):
        return f"{finding}, which may be chance"
    if ceiling is None or rate.value < POWER * ceiling:
        bar = percent(POWER * (ceiling or 1.0)).replace(NBSP, " ")
        return f"{finding}, and only {bar} or more show that it works"
    other = other_ways(searched, effort(group, Group(())), rate.n * POWER * ceiling)
    return f"{finding}, but {other}" if other else ""


def _of_recorded(study: Study, trials: Trials, source: SourceFacts) -> Control:
    name = "positive (known faces, trained on as the clients trained, no defense)"
    requirement = f"SSIM above the prior-only control's by {MARGIN:g}, by an interval"
    first = study.scenarios[0]
    results = []
    for attack in first.attacks:
        place = (first.name, first.defenses[0].label, attack.label)
        gain = _gain(trials, *place, control=True)
        values = trials.group(*place, "positive").metric("ssim")
        if gain and values:
            group = trials.group(*place, "positive")
            suffix = f", re-identified {rate_text(rate_of(group))}" if group.tested() else ""
            ssim = f"SSIM {number(sum(values) / len(values))}, {_over(gain)}"
            known = ", not counted: its prior knows them" if attack.label in source.familiar else ""
            results.append(f"{attack.label} {ssim}{suffix}{known}")
    if not results:
        return Control(name, first.name, "not run", requirement, None)
    outcome = f"on {source.positive}: {'; '.join(results)}"
    counted = [attack.label for attack in first.attacks if attack.label not in source.familiar]
    success = any(succeeds(study, trials, label) for label in counted) if counted else None
    return Control(name, first.name, outcome, requirement, success)


def _gain(
    trials: Trials, scenario: str, defense: str, attack: str, *, control: bool = False
) -> Estimate | None:
    """SSIM over the prior-only control's, on the same images."""
    roles = ("positive", "positive_prior") if control else ("audit", "prior_only")
    ours, theirs = (trials.group(scenario, defense, attack, role).scores() for role in roles)
    return difference(ours, theirs, lambda score: score.metrics.get("ssim", 0.0), (-2, 2))


def _over(gain: Estimate) -> str:
    return f"{signed(gain.value)} over prior-only ({signed(gain.low)} to {signed(gain.high)})"
