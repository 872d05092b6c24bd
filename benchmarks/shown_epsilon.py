"""Claimed and shown ε: `python benchmarks/shown_epsilon.py`, about 10 CPU minutes.

Canaries in DP-SGD on the ORL federation, white-box or (`--seen model`) in the final model: how near
the bounds come to the claim, and how often one lies above it (it may in 5 % of correct trainings).
`--unit client` audits noise on the device by canary clients, and adds what is estimated of ε.
"""

import argparse
import time

import torch

from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.training import LocalTraining
from fedaudit.study.canary_audit import audit_with_canaries
from fedaudit.study.canary_result import CanaryAudit

DELTA = 1e-5
BOUNDS = ("any_mechanism", "f_dp", "gaussian")


def main() -> None:
    """Parse, run, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", default="lenet")
    parser.add_argument("--seen", choices=("updates", "model"), default="updates")
    parser.add_argument("--unit", choices=("image", "client"), default="image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("Bounds: median (range), and of how many trainings one lies above the claim.\n")
    print("| claimed ε | any mechanism | f-DP | Gaussian model | any of them | estimate | CPU s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for epsilon in options.epsilons:
        began = time.process_time()
        audits = [_audit(options, epsilon, seed) for seed in range(options.seeds)]
        cells, over = [], set[int]()
        for name in BOUNDS:
            values = [getattr(one.shown, name) for one in audits]
            claims = [one.claim.epsilon if one.claim else epsilon for one in audits]
            above = {k for k, value in enumerate(values) if value > claims[k]}
            cells.append(f"{_range(values)}, {len(above)} above")
            over |= above
        cells.append(f"{len(over)} of {options.seeds} above")
        cells.append(_range([one.estimate.value for one in audits if one.estimate]))
        spent = (time.process_time() - began) / options.seeds
        print(
            f"| {epsilon:g} | {' | '.join(cells)} | {spent:.1f} |",
            flush=True,
        )


def _audit(options: argparse.Namespace, epsilon: float, seed: int) -> CanaryAudit:
    of_clients = options.unit == "client"
    scenario = Scenario(
        "canaries",
        network=Choice(options.network),
        method=Choice("fedavg" if of_clients else "fedsgd"),
        defenses=(Choice("client_dp" if of_clients else "dpsgd", {"epsilon": epsilon}),),
        federation=Federation(
            clients=4, rounds=options.rounds, training=LocalTraining(batch_size=1000)
        ),
    )
    study = Study("canaries", (scenario,), size=32, seeds=(seed,))
    (audit,) = audit_with_canaries(
        study, options.canaries, unit=options.unit, delta=DELTA, seed=seed, seen=options.seen
    )
    return audit


def _range(values: list[float]) -> str:
    """Median and range."""
    ordered = sorted(values)
    if not ordered:
        return "—"
    return f"{ordered[len(ordered) // 2]:.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"


if __name__ == "__main__":
    main()
