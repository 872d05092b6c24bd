"""What `sequential = true` saves, and whether it is wrong as rarely as a study of all targets.

    python benchmarks/sequential_stopping.py                 # 400 audits a line
    python benchmarks/sequential_stopping.py --rates-only    # the intervals alone, a minute

Audits are made up as for `verdict_power.py`, and judged by the code that judges real ones. Each is
judged with all its targets, and with looks as a sequential study has them. Planted leaks say what
is saved, and whether the verdict is the same; null audits, sixteen times as many, how often LEAK
DEMONSTRATED is wrong, there and, to show what the correction is for, as said by somebody who looks
as often and stops at the first verdict without it. The intervals of a rate are tried on rates from
1 % to 99 %: how often is one of them wrong at any look, above or below? A clean word is wrong where
the upper one is.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from made_up_audits import (
    DEFENSES,
    FMR,
    Draw,
    Faces,
    audit_trials,
    load,
    made_up_study,
    priors,
)
from verdict_power import LEAK

from fedaudit.core.scenario import Study
from fedaudit.core.trial import Cell
from fedaudit.reports.results import Settings
from fedaudit.reports.rows import rows
from fedaudit.reports.stopping import DECIDED, stops
from fedaudit.reports.trials import Trials
from fedaudit.reports.verdicts import standing_row
from fedaudit.scoring.identity import Gallery
from fedaudit.stats.intervals import rate_of
from fedaudit.stats.sequential import looks, repeated_interval

SETTINGS = Settings(reid_limit=0.12, confidence=0.95, fmr=FMR, exhibit_seed=0)
"""30 people, all that ORL has for training, exclude 12 %."""


def verdicts(study: Study, trials: Trials, gallery: Gallery) -> dict[str, str]:
    """The verdict on each defense."""
    table = [r for r in rows(study, trials, {}, SETTINGS, gallery) if r.reid]
    return {
        d: standing_row([row for row in table if row.defense == d]).verdict.kind for d in DEFENSES
    }


def sequential(study: Study, trials: Trials, gallery: Gallery) -> tuple[dict[str, str], Trials]:
    """The verdicts of a study that stops where it is decided, and the trials that it took."""
    study = replace(study, sequential=True)
    (scenario,) = study.scenarios
    until = dict.fromkeys(DEFENSES, 0)
    taken, over = Trials(()), set[str]()
    for look in looks(scenario.targets):
        until |= {defense: look for defense in DEFENSES if defense not in over}
        taken = _first(trials, until)
        table = rows(study, taken, {}, SETTINGS, gallery)
        over = {s.defense for s in stops(study, table, taken, ()) if s.decided}
        if len(over) == len(DEFENSES):
            break
    return verdicts(study, taken, gallery), taken


def peeking(study: Study, trials: Trials, gallery: Gallery) -> dict[str, str]:
    """The first verdicts that decide, by somebody who looks without a correction."""
    (scenario,) = study.scenarios
    found: dict[str, str] = {}
    for look in looks(scenario.targets):
        now = verdicts(study, _first(trials, dict.fromkeys(DEFENSES, look)), gallery)
        found = {d: found[d] if found.get(d) in DECIDED else kind for d, kind in now.items()}
    return found


def _first(trials: Trials, until: Mapping[str, int]) -> Trials:
    def kept(cell: Cell) -> bool:
        return cell.target < until[cell.defense]

    return Trials(tuple(trial for trial in trials.all if kept(trial.cell)))


def audits(
    faces: Faces,
    gallery: Gallery,
    draws: Mapping[str, Draw],
    *,
    count: int,
    targets: int,
    share: float,
    control: float,
    peek: bool = False,
) -> None:
    """Print a line: verdicts on the deployed defense three ways, and cells saved."""
    study = made_up_study(targets, 1)
    names = list(draws)
    leaks = Counter[str]()
    same, cells, of = 0, 0, 0
    for k in range(count):
        draw = draws[names[k % len(names)]]
        random = np.random.default_rng((7, targets, round(100 * share), round(100 * control), k))
        trials = audit_trials(
            faces, gallery, draw, random, targets=targets, batch=1, share=share, control=control
        )
        fixed = verdicts(study, trials, gallery)
        early, taken = sequential(study, trials, gallery)
        ways = {"all targets": fixed, "sequential": early}
        if peek:
            ways["peeking"] = peeking(study, trials, gallery)
        leaks.update({way: verdict["dplc"] == LEAK for way, verdict in ways.items()})
        same += early == fixed
        cells, of = cells + len(taken.all), of + len(trials.all)
    told = ", ".join(f"{way} {_rate(hits, count)}" for way, hits in leaks.items())
    print(
        f"{targets} targets, {share:.0%} come back under the defense, {control:.0%} without: LEAK "
        f"DEMONSTRATED by {told}; sequential saves {1 - cells / of:.0%} of cells, all verdicts "
        f"the same in {same} of {count}",
        flush=True,
    )


def _rate(hits: int, n: int) -> str:
    rate = rate_of(hits, n)
    return f"{hits} of {n} ({rate.low:.1%} to {rate.high:.1%})"


def intervals(count: int) -> None:
    """Print how often an interval is wrong at any look, and a clean word at a rate of the limit."""
    random = np.random.default_rng(1)
    print("rate: intervals wrong at any look (at most 2.5 % each is right), below and above")
    for targets in (16, 72, 150):
        of = looks(targets)
        shown = []
        for rate in (0.01, 0.05, 0.12, 0.3, 0.5, 0.7, 0.9, 0.99):
            found = (random.random((count, targets)) < rate).cumsum(axis=1)
            low, high = np.zeros(count, bool), np.zeros(count, bool)
            for k, n in enumerate(of):
                hits = found[:, n - 1]
                ends = np.array([repeated_interval(h, of[: k + 1], of) for h in range(n + 1)])
                low |= ends[hits, 0] > rate
                high |= ends[hits, 1] < rate
            shown.append(f"{rate:.0%}: {low.mean():.2%}, {high.mean():.2%}")
        print(f"  {targets} targets, looks at {', '.join(map(str, of))}: {'; '.join(shown)}")


def main() -> None:
    """Print one line a kind of audit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--audits", type=int, default=400, help="of each line (default: 400)")
    parser.add_argument("--rates-only", action="store_true", help="no made-up audits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    intervals(20_000)
    if options.rates_only:
        return
    faces, gallery = load("orl", "dlib")
    draws = priors(faces)
    one = {"face GAN": draws["face GAN"]}
    for targets in (16, 30):
        for share in (1.0, 0.5, 0.25, 0.0):
            count = options.audits // 16
            audits(faces, gallery, one, count=count, targets=targets, share=share, control=1)
    for targets, control in ((16, 0), (16, 1), (30, 1)):
        audits(
            faces, gallery, draws,
            count=options.audits, targets=targets, share=0, control=control, peek=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
