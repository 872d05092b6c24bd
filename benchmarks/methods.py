"""Every federated method learns: verification of people it never saw, against rounds.

    python benchmarks/methods.py            # minutes on two cores
    python benchmarks/methods.py --quick    # fewer rounds, a minute or two

ORL at 32 px, the network `face`. Thirty people train with five photos each, ten are held out; each
number is the balanced accuracy over all pairs of held-out photos at the best threshold, which
favors every row alike, and the last column the area under the ROC. Round 0 is the start: random, or
pre-trained on invented people for the methods that ask for it.

    central           all photos at one place, as many steps as all clients together
    fedavg            one head for everybody
    fedavg, own heads each client's head stays with it: what privacyface and fedgc must beat
    fedaffect         the people are the classes, as ORL states no expressions; two labelled photos
                      of each, the others without labels
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import torch

from fedaudit.config import Federation
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.federation.rounds import Simulation
from fedaudit.federation.utility import measure
from fedaudit.registry import create
from fedaudit.types import ModelSpec

CLIENTS, PEOPLE, STEPS = 5, 30, 4


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    clients: int = CLIENTS
    steps: int = STEPS
    own_heads: bool = False


ROWS = (
    Row("central", "fedavg", clients=1, steps=CLIENTS * STEPS),
    Row("fedavg", "fedavg"),
    Row("fedavg, own heads", "fedavg", own_heads=True),
    Row("fedsgd", "fedsgd"),
    Row("fedprox", "fedprox"),
    Row("fedgc", "fedgc"),
    Row("fedgc, λ = 20", "fedgc", {"strength": 20.0}),
    Row("privacyface, ρ = 1.3, ε = 1", "privacyface"),
    Row("privacyface, ρ = 1.5, ε = 1", "privacyface", {"radius": 1.5}),
    Row("privacyface, ρ = 1.5, ε = 1000", "privacyface", {"radius": 1.5, "epsilon": 1000.0}),
    Row("private_projector", "private_projector"),
    Row("solomon_woubie, supervised", "solomon_woubie"),
    Row("solomon_woubie, secure", "solomon_woubie", {"secure": True}),
    Row("solomon_woubie, unsupervised", "solomon_woubie", {"supervised": False}),
    Row("fedaffect", "fedaffect"),
    Row("fedaffect, labelled alone", "fedaffect", {"unlabelled_weight": 0.0}),
    Row("fedavg, 30 clients", "fedavg", clients=PEOPLE, steps=1),
    Row("fedface, 30 clients", "fedface", clients=PEOPLE, steps=1),
    Row("fedface, no spreadout", "fedface", {"spread_steps": 0}, clients=PEOPLE, steps=1),
)


def run(row: Row, marks: tuple[int, ...], seed: int) -> tuple[list[float], float]:
    """Accuracy at each mark (a number of rounds), and the last area under the ROC."""
    settings = Federation(
        clients=row.clients, local_steps=row.steps, batch_size=16, lr=0.05, momentum=0.9
    )
    faces = orl(size=32)
    defense, kept = (
        ("private_projector", {"private": ("head.",)}) if row.own_heads else ("none", {})
    )
    simulation = Simulation(
        network=ModelSpec("face"),
        faces=faces,
        split=split(faces, settings),
        federation=settings,
        method=create("methods", row.method, row.settings),
        defense=create("defenses", defense, kept),
        seed=seed,
    )
    state, done, found, area = simulation.fresh(), 0, [], 0.0
    for mark in marks:
        state, seconds = simulation.train(state, range(done + 1, mark + 1))
        done = mark
        utility = measure(simulation, state, rounds=mark, seconds=seconds)
        assert utility is not None
        found.append(utility.accuracy)
        area = utility.auc
    return found, area


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten rounds")
    parser.add_argument("--seeds", type=int, default=1, help="runs that are averaged")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    marks = (0, 5, 10) if options.quick else (0, 10, 20, 40)
    print(f"{'':32}" + "".join(f"{f'r{m}':>8}" for m in marks) + f"{'AUC':>8}{'CPU s':>8}")
    for row in ROWS:
        if not row.name.startswith(options.only):
            continue
        started = time.process_time()
        runs = [run(row, marks, seed) for seed in range(options.seeds)]
        accuracy = [mean(values) for values in zip(*(found for found, _ in runs), strict=True)]
        area = mean(area for _, area in runs)
        seconds = time.process_time() - started
        numbers = "".join(f"{value:8.3f}" for value in (*accuracy, area))
        print(f"{row.name:32}{numbers}{seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main()
