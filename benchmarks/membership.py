"""Who is told to be in the data: `python benchmarks/membership.py`, about 8 CPU minutes.

Federations of ten clients are trained for 30 rounds (FedAvg), without a defense and under DP-SGD,
and their server asks of everybody whether they are in each client's data. The class that is taken
for a candidate and the watched rounds were chosen on ORL with `face`; the other lines are other
people, colors and networks.
"""

import argparse
import time

import torch

from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.inference import Membership
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.reports.membership_lines import recall, strongest_score
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
    print("| people | network | defense | people told, 1 % FPR | by | AUC | FedMIA: AUC", end=" ")
    print("| photos told, 1 % FPR | smallest p (Holm) | outsiders' p | properties: ρ (p)", end=" ")
    print("| CPU s |\n|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
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
    label = "none" if epsilon is None else f"DP-SGD, ε = {epsilon:g} per image"
    people = strongest_score(found, "person")
    if people is None:
        raise SystemExit(found.reason)
    auc = next(one.auc for one in found.scores if (one.attack, one.level) == ("FedMIA", "person"))
    adjusted = min(holm([one.p_value for one in found.scores]))
    properties = ", ".join(
        f"{one.property} {one.correlation:.2f} ({one.p_value:.2g})" for one in found.properties
    )
    print(
        f"| {faces}, {found.members} in, {found.outsiders} out | {network} | {label} "
        f"| {_told(found, 'person')} | {people.attack} | {people.auc:.2f} | {auc:.2f} "
        f"| {_told(found, 'image')} | {adjusted:.2g} | {found.control:.2g} "
        f"| {properties} | {spent:.0f} |",
        flush=True,
    )


def _told(found: Membership, level: str) -> str:
    score = strongest_score(found, level)
    rate = recall(score)[1] if score else None
    return f"{rate.value:.0%} ({rate.low:.0%} to {rate.high:.0%})" if rate else "—"


if __name__ == "__main__":
    main()
