"""Whether a recorded run's updates need be attacked: not where no attack works on known faces."""

from fedaudit.core.scenario import Study
from fedaudit.core.trial import POSITIVE
from fedaudit.reports.positive_control import MARGIN
from fedaudit.reports.text import signed
from fedaudit.reports.trials import Trials


def hopeless(study: Study, trials: Trials) -> str:
    """Why a recorded run's updates need not be attacked; "" where they are to be.

    Only where each attack was tried on all known faces of the positive control, and none came back
    by more than `MARGIN` over the prior-only control: one face that does is a reason to go on.
    """
    first = study.scenarios[0]
    best = -1.0
    for attack in first.attacks:
        place = (first.name, first.defenses[0].label, attack.label)
        ours, prior = (trials.group(*place, role).scores() for role in POSITIVE)
        common = ours.keys() & prior.keys()
        if len({target for target, _, _ in common}) < study.positives:
            return ""
        pairs = [(ours[image].metrics, prior[image].metrics) for image in common]
        gains = (mine.get("ssim", 1.0) - chance.get("ssim", 0.0) for mine, chance in pairs)
        best = max(best, *gains)
    if not study.positives or best > MARGIN:
        return ""
    return (
        "no attack rebuilds a known face on which the clients' training was repeated without a "
        f"defense (SSIM over the prior-only control {signed(best)} at best; more than "
        f"{signed(MARGIN)} would count). That they fail on the recorded updates would say nothing: "
        "these were not attacked. Name other attacks or more steps (--attacks, with another "
        "--output), or attack all the same with --keep-going"
    )
