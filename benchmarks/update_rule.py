"""Who said it, the update or the prior? Both errors of three rules for what is called a leak.

    python benchmarks/update_rule.py

Attack and control are ranks of the true person among 30, drawn: first with some probability and
else anywhere. Where that probability is the control's too, all that comes back is the prior's (or a
trained model's, or a label's), and every detection is false. Rules, after the test on identity at
5 %: "before": unless the control passes as well, within ten times the p-value; "silent": unless the
control passes at 5 %; "guarded": where it passes, attack over control; "over control": always that.
The last is the rule where something beside the update may know who stands where, "guarded" the one
where nothing can; the lines of priors show what it costs if something did. A minute on one core.
"""

import argparse
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedaudit.stats.drawn_p_values import DRAWN
from fedaudit.stats.exchange import exchange_test
from fedaudit.stats.randomization import rank_scores

CANDIDATES = 30
RULES = ("before", "silent", "guarded", "over control")
KNOWN = ((0.1, 0.1), (0.25, 0.25), (0.5, 0.5), (0.75, 0.75))
LEAKS = ((0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (1.0, 0.0), (0.75, 0.25), (1.0, 0.25))
Table = NDArray[np.float64]


def decisions(random: np.random.Generator, people: int, found: float, control: float) -> list[bool]:
    """What each rule says of one audit."""
    ours, theirs = (_scores(random, people, share) for share in (found, control))
    p, q = _p_value(ours), _p_value(theirs)
    over = exchange_test((ours - theirs).tolist(), 1 - CANDIDATES**-0.5)
    said = p <= 0.05
    return [
        said and q > min(0.05, 10 * p),
        said and q > 0.05,
        said and (q > 0.05 or over <= 0.05),
        said and over <= 0.05,
    ]


def _scores(random: np.random.Generator, people: int, found: float) -> Table:
    ranks = random.integers(1, CANDIDATES + 1, people)
    return np.where(random.random(people) < found, 1, ranks) ** -0.5


@cache
def _others(people: int) -> Table:
    """Sums of the scores of people at places of others, ascending.

    Places are drawn apart, which for few of 30 is nearly the same as without replacement.
    """
    every = rank_scores(-np.arange(CANDIDATES))
    places = np.random.default_rng(people).integers(0, CANDIDATES, (DRAWN, people))
    return np.sort(every[places].sum(1))


def _p_value(scores: Table) -> float:
    """Of the test on identity."""
    others = _others(len(scores))
    below = np.searchsorted(others, scores.sum() - 1e-9)
    return float((len(others) - below + 1) / (DRAWN + 1))


def main() -> None:
    """Print how often each rule says that the update gave somebody away."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--audits", type=int, default=1000, help="of each line (default: 1000)")
    audits = parser.parse_args().audits
    heads = "".join(f"{rule:>14}" for rule in RULES)
    print(f"{'people':>6} {'come back':>10} {'of the control':>15}{heads}")
    for title, settings in (("false: the prior says it", KNOWN), ("true, from 25 % on", LEAKS)):
        print(title)
        for people in (4, 8, 16, 30):
            for found, control in settings:
                random = np.random.default_rng((people, round(100 * found), round(100 * control)))
                told = [decisions(random, people, found, control) for _ in range(audits)]
                cells = "".join(f"{share:>14.1%}" for share in np.mean(told, axis=0))
                print(f"{people:>6} {found:>10.0%} {control:>15.0%}{cells}", flush=True)


if __name__ == "__main__":
    main()
