"""How often a report says LEAK DEMONSTRATED where nothing leaks, and where faces do come back.

    python benchmarks/verdict_power.py                                  # ORL, dlib
    python benchmarks/verdict_power.py --data synthetic --judge sface   # other faces, another judge

Audits are made up, and judged by the code that judges real ones: no attack runs, and everything
after the attack does. Faces are at 32 px with the study's own gallery and judge, embedded once and
dealt anew for each audit; a deployed defense is attacked by one attack that knows it and one that
does not, beside a control without a defense and prior-only controls.

Null audits: nothing of the target is in what is rebuilt, which is drawn from a prior instead. Half
of them leave the control without a defense a leak, half do not. Planted leaks: of a share of the
people another photo of theirs comes back under the deployed defense, of the others a stranger's.
Priors that know labels: they return another photo of the right person with some probability,
whatever the update says, to the attack and to its control alike; told of an attack from another
package and of a model that was trained on the people, where the report must expect it, and of a
fresh round, where only an attack that was made with this very deal could. ORL's faces chose the
statistic of the test (`identity_statistic.py`); null audits do not depend on it.

About five minutes on one core.
"""

import argparse
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import torch
from made_up_audits import (
    ADAPTIVE,
    BLIND,
    FMR,
    Draw,
    Faces,
    audit_trials,
    load,
    made_up_study,
    priors,
)

from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.reports.comparison import Verdict, VerdictKind
from fedaudit.reports.controls import any_failed, controls
from fedaudit.reports.headline import headline
from fedaudit.reports.results import Settings
from fedaudit.reports.rows import rows
from fedaudit.scoring.identity import Gallery
from fedaudit.stats.intervals import rate_of

SETTINGS = Settings(reid_limit=0.05, confidence=0.95, fmr=FMR, exhibit_seed=0)
LEAK: VerdictKind = "LEAK DEMONSTRATED"


def judged(
    faces: Faces,
    gallery: Gallery,
    draw: Draw,
    random: np.random.Generator,
    *,
    targets: int,
    batch: int,
    share: float,
    control: float,
    known: float = 0.0,
    stranger: bool = False,
    number: int = 1,
) -> tuple[Verdict, bool]:
    """The headline of one made-up audit, and whether any row demonstrates a leak.

    Arguments are those of `audit_trials`, and whether the attacks come from another package.
    """
    trials = audit_trials(
        faces, gallery, draw, random,
        targets=targets, batch=batch, share=share, control=control, known=known, number=number,
    )  # fmt: skip
    study = made_up_study(targets, batch)
    source = SourceFacts(strangers=(BLIND, ADAPTIVE)) if stranger else COMPLETE
    table = rows(study, trials, {}, SETTINGS, gallery, source)
    verdict, _ = headline(table, SETTINGS, study.audited)
    if any_failed(controls(study, trials, table, gallery)):
        verdict = Verdict("INVALID", "")
    return verdict, any(row.verdict.kind == "LEAK DEMONSTRATED" for row in table)


def main() -> None:
    """Print the shares of audits that say LEAK DEMONSTRATED, with exact intervals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--audits", type=int, default=200, help="of each line (default: 200)")
    parser.add_argument("--data", default="orl", help="face set of 40 people (default: orl)")
    parser.add_argument("--judge", default="dlib", help="dlib or sface (default: dlib)")
    parser.add_argument("--first", type=int, default=0, help="number of the first audit (0)")
    parser.add_argument("--null-only", action="store_true", help="no planted leaks and priors")
    options = parser.parse_args()
    audits = options.audits
    torch.set_num_threads(1)
    faces, gallery = load(options.data, options.judge)
    drawn = priors(faces)
    print(f"{'audits':<60}{'LEAK DEMONSTRATED':>18}   95 % interval")

    def told(name: str, hits: int, n: int) -> None:
        rate = rate_of(hits, n)
        shown = name.replace("%", " %")
        print(f"{shown:<60}{f'{hits} of {n}':>18}   {rate.low:.1%} to {rate.high:.1%}", flush=True)

    hits, rows_, invalid, by_prior = 0, 0, 0, Counter[str]()
    for k in range(options.first, options.first + audits):
        name = list(drawn)[k % len(drawn)]
        batch, targets = (1, 4)[k // 5 % 2], (8, 16)[k // 10 % 2]
        random = np.random.default_rng((1, k))
        leaky = k // 20 % 2  # whether the control without a defense leaks, as it does in life
        verdict, somewhere = judged(
            faces, gallery, drawn[name], random,
            targets=targets, batch=batch, share=0.0, control=float(leaky),
        )  # fmt: skip
        hits += verdict.kind == LEAK
        invalid += verdict.kind == "INVALID"
        rows_ += somewhere and not leaky
        by_prior[name] += verdict.kind == LEAK
    told("null, what is deployed (headline)", hits, audits)
    told("null, any row, where the control leaks nothing either", rows_, audits // 2)
    print("  by prior:", ", ".join(f"{name} {by_prior[name]}" for name in drawn))
    print(f"  INVALID, by a control: {invalid} of {audits}")
    if options.null_only:
        return

    def planted(words: str, seed: int, targets: int, **what: Any) -> None:
        found = [
            judged(
                faces, gallery, drawn["face GAN"], np.random.default_rng((seed, targets, k)),
                targets=targets, batch=1, control=1.0, **what,
            )[0].kind == LEAK
            for k in range(options.first, options.first + audits)
        ]  # fmt: skip
        told(words, sum(found), audits)

    for share, targets in product((0.5, 0.25), (8, 16)):
        planted(f"planted, {share:.0%} of {targets} people come back", 2, targets, share=share)
    for known, targets in product((0.25, 0.5, 1.0), (8, 16)):
        words = f"null, the prior knows {known:.0%} of {targets} labels"
        planted(f"{words}, another package", 3, targets, share=0.0, known=known, stranger=True)
        planted(f"{words}, trained model", 3, targets, share=0.0, known=known, number=5)
        planted(f"{words}, fresh", 3, targets, share=0.0, known=known)
    for targets in (8, 16, 30):
        words = f"planted, all of {targets} come back, the prior knows 25%"
        planted(f"{words}, trained model", 4, targets, share=1.0, known=0.25, number=5)
        words = f"planted, 50% of {targets} come back, trained model"
        planted(words, 5, targets, share=0.5, number=5)


if __name__ == "__main__":
    main()
