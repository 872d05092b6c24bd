"""Claimed and shown ε: `python benchmarks/shown_epsilon.py`, about 10 CPU minutes.

Canaries in DP-SGD on the ORL federation, white-box or (`--seen model`) in the final model: how near
the bounds come to the claim, and how often one lies above it (it may in 5 % of correct trainings).
"""

import argparse
import time

import torch

from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.training import LocalTraining
from fedaudit.study.canary_training import train_with_canaries
from fedaudit.study.shown_epsilon import shown_epsilon

DELTA = 1e-5


def main() -> None:
    """Parse, run, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", default="lenet")
    parser.add_argument("--seen", choices=("updates", "model"), default="updates")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| claimed ε | above it | any mechanism | f-DP | Gaussian model | CPU s a run |")
    print("|---|---|---|---|---|---|", flush=True)
    for epsilon in options.epsilons:
        shown, claims, began = [], [], time.process_time()
        for seed in range(options.seeds):
            defense = Choice("dpsgd", {"epsilon": epsilon})
            training = LocalTraining(batch_size=1000)
            scenario = Scenario(
                "canaries",
                network=Choice(options.network),
                method=Choice("fedsgd"),
                defenses=(defense,),
                federation=Federation(clients=4, rounds=options.rounds, training=training),
            )
            study = Study("canaries", (scenario,), size=32, seeds=(seed,))
            simulation = simulation_of(study, scenario, defense)
            seen = train_with_canaries(simulation, options.canaries, seed=seed, seen=options.seen)
            claims.append(seen.claims[0].epsilon)
            shown.append(shown_epsilon(seen.scores, seen.inside, delta=DELTA))
        above = sum(
            max(one.any_mechanism, one.f_dp, one.gaussian) > claim
            for one, claim in zip(shown, claims, strict=True)
        )
        columns = [
            sorted(getattr(one, name) for one in shown)
            for name in ("any_mechanism", "f_dp", "gaussian")
        ]
        cells = " | ".join(f"{c[len(c) // 2]:.2f} ({c[0]:.2f} to {c[-1]:.2f})" for c in columns)
        spent = (time.process_time() - began) / options.seeds
        print(f"| {epsilon:g} | {above} of {options.seeds} | {cells} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
