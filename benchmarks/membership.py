"""Who is told to be in the data: `python benchmarks/membership.py`, about 15 CPU minutes.

Federations of ten clients are trained for 30 rounds (FedAvg), without a defense and under DP-SGD,
and their server asks of everybody whether they are in each client's data. The class that is taken
for a candidate and the watched rounds were chosen on ORL with `face`; the other lines are other
people, colors and networks.
"""

import argparse
import time

import torch

from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.measures import Rate
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.scoring.membership_judge import RATES
from fedaudit.stats.intervals import holm
from fedaudit.study.run_inference import infer_membership

SETS = {
    "orl": (Choice("orl"), 20),
    "synthetic": (Choice("synthetic", {"people": 120, "photos": 10, "seed": 7}), 60),
}
"""Faces, and how many people are in nobody's data."""


def main() -> None:
    """Parse, run, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--networks", nargs="+", default=["face", "face_pooled"])
    parser.add_argument("--epsilons", type=float, nargs="*", default=[4])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("One line a federation, then one for each of its attacks.")
    for faces in options.sets:
        for network in options.networks:
            for epsilon in (None, *options.epsilons):
                for seed in range(options.seeds):
                    _line(faces, network, epsilon, options.rounds, seed)


def _line(faces: str, network: str, epsilon: float | None, rounds: int, seed: int) -> None:
    data, outsiders = SETS[faces]
    name = "none" if epsilon is None else "dpsgd"
    defense = Choice(name, {} if epsilon is None else {"epsilon": epsilon})
    scenario = Scenario(
        "members",
        network=Choice(network),
        method=Choice("fedavg"),
        defenses=(defense,),
        federation=Federation(clients=10, rounds=rounds, held_out=outsiders),
    )
    study = Study("members", (scenario,), data=data, size=32, seeds=(seed,))
    began = time.process_time()
    found = infer_membership(simulation_of(study, scenario, defense), "members", name)
    spent = time.process_time() - began
    if not found.scores:
        raise SystemExit(found.reason)
    label = "none" if epsilon is None else f"DP-SGD, ε = {epsilon:g} per image"
    adjusted = holm([one.p_value for one in found.scores])
    print(
        f"\n{faces}, {network}, {label}, seed {seed}: {found.members} in, {found.outsiders} out; "
        f"smallest p after Holm {min(adjusted):.2g}, outsiders' p {found.control:.2g}, "
        f"{spent:.0f} CPU s\n\n| told by | level | at 0.1 % FPR | at 1 % FPR "
        "| AUC (chance below) | p (Holm) |\n|---|---|---|---|---|---|"
    )
    for one, p in zip(found.scores, adjusted, strict=True):
        told = {at.fpr: at.tpr for at in one.recalls}
        cells = " | ".join(_rate(told.get(fpr)) for fpr in RATES)
        area = f"{one.auc:.2f} ({one.shuffled:.2f})"
        print(f"| {one.attack} | {one.level} | {cells} | {area} | {p:.2g} |")
    print("\n| property | rank correlation | p |\n|---|---|---|")
    for name in found.properties:
        print(f"| {name.property} | {name.correlation:.2f} | {name.p_value:.2g} |", flush=True)


def _rate(rate: Rate | None) -> str:
    return f"{rate.value:.0%} ({rate.low:.0%} to {rate.high:.0%})" if rate else "—"


if __name__ == "__main__":
    main()
