"""The positive control: the pipeline must be able to see a leak where there is one.

Judged by SSIM, not by re-identification: a run with few targets, or faces too small to be told
apart, must still show that the attack rebuilds what nothing protects.
"""

from fedaudit.core.measures import Estimate
from fedaudit.core.scenario import Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.reports.comparison import Row
from fedaudit.reports.results import Control
from fedaudit.reports.trials import Trials, paired
from fedaudit.stats import intervals

MARGIN = 0.1
"""SSIM over prior-only that counts on a recorded run, whose control has few faces: by chance alone
all of them may lie on one side, by hundredths."""


def positive(
    study: Study, trials: Trials, rows: tuple[Row, ...], source: SourceFacts = COMPLETE
) -> Control:
    """Whether any attack rebuilds what nothing protects.

    Of a simulated study the undefended rows with one image say so; of a recorded run, steps that
    the auditor made itself from what the server had sent.
    """
    if source.positive:
        return _of_recorded(study, trials, source.positive)
    name = "positive (undefended, batch 1: the attack must succeed)"
    requirement = "SSIM above the prior-only control's, by an interval that excludes 0"
    undefended = {c.label for s in study.scenarios for c in s.defenses if c.name == "none"}
    tried = [row for row in rows if row.defense in undefended and row.batch_size == 1]
    gains = [
        (gain.low, gain, m.ssim.value, row)
        for row in tried
        if (m := row.measurement)
        and m.ssim
        and (gain := _gain(trials, row.scenario, row.defense, row.attack))
    ]
    if not gains:
        return Control(name, "all", "no undefended row with batch 1", requirement, None)
    _, gain, ssim, best = max(gains, key=lambda item: item[0])
    outcome = f"SSIM {ssim:.2f} by {best.attack}, {_over(gain)}"
    return Control(name, best.scenario, outcome, requirement, gain.low > 0)


def succeeds(study: Study, trials: Trials, attack: str) -> bool | None:
    """Whether an attack of a recorded run rebuilds what nothing protects; None if not tried."""
    if not study.scenarios:
        return None
    first = study.scenarios[0]
    gain = _gain(trials, first.name, first.defenses[0].label, attack, control=True)
    return None if gain is None else gain.low > MARGIN


def _of_recorded(study: Study, trials: Trials, faces: str) -> Control:
    name = "positive (an undefended step of the auditor's own, batch 1: the attack must succeed)"
    requirement = f"SSIM above the prior-only control's by {MARGIN:g}, by an interval"
    first = study.scenarios[0]
    outcomes = []
    for attack in first.attacks:
        place = (first.name, first.defenses[0].label, attack.label)
        gain = _gain(trials, *place, control=True)
        values = trials.group(*place, "positive").metric("ssim")
        if gain and values:
            outcomes.append(f"{attack.label} SSIM {sum(values) / len(values):.2f}, {_over(gain)}")
    if not outcomes:
        return Control(name, first.name, "not run", requirement, None)
    passed = any(succeeds(study, trials, attack.label) for attack in first.attacks)
    return Control(name, first.name, f"on {faces}: {'; '.join(outcomes)}", requirement, passed)


def _gain(
    trials: Trials, scenario: str, defense: str, attack: str, *, control: bool = False
) -> Estimate | None:
    """SSIM over the prior-only control's, on the same images."""
    roles = ("positive", "positive_prior") if control else ("audit", "prior_only")
    ours, theirs = paired(*(trials.group(scenario, defense, attack, role) for role in roles))
    if not ours:
        return None
    values = (
        [s.metrics.get("ssim", 0.0) for s in ours],
        [s.metrics.get("ssim", 0.0) for s in theirs],
    )
    return intervals.paired_difference(*values, [score.person for score in ours])


def _over(gain: Estimate) -> str:
    return f"{gain.value:+.2f} over prior-only ({gain.low:+.2f} to {gain.high:+.2f})"
