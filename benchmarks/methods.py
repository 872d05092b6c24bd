"""Every federated method learns: accuracy on people it never saw, against rounds.

    python benchmarks/methods.py                   # a quarter of an hour on one core
    python benchmarks/methods.py --quick           # half as many rounds
    python benchmarks/methods.py --only fedgc --seeds 3

Verification: ORL at 32 px, the network `face`. Thirty people train with five photos each, ten are
held out; each number is the balanced accuracy over all pairs of held-out photos, the mean over
people, each pair judged at the threshold that pairs of other people set
(`fedaudit.federation.face_verification`); AUC is the area under the ROC of all pairs. Chance is
0.5. Until 2026-11-26 one threshold was taken, the best over all pairs: figures of that time, those
of docs/benchmarks/federated_methods.md among them, are a point or two higher. A random network had
0.79 so, because photos of a person share pose and light. Round 0 is the start: random, or
pre-trained on invented people for the methods that ask for it. Five clients, 8 steps of 16 photos a
round, learning rate 0.02, momentum 0.9, where a row does not say otherwise.

    central           all photos at one place, as many steps as all clients together
    fedavg            one head for everybody
    fedsgd            one step a round, hence as many times the rounds
    fedavg, own heads each client's head stays with it: what privacyface and fedgc must beat
    privacyface, T = 1               every class embedding is a cluster of its own, 17° wide: ε
                                     alone decides what the others see of it
    solomon_woubie, unsupervised     its two views are fixed: best after ten rounds, then worse
    private_projector                each device's own network is measured, the mean is printed; a
                                     projector of 131,000 weights learns from what one device has
    fedavg, own heads, pre-trained   the same start, with the embedding shared as well
    fedface           one person a client, four steps; both of its terms are squares of small
                      numbers, hence its learning rate

Expressions: 180 invented people, two faces each, on which two classifiers agree
(`fedaudit.data.expressions`); 120 people train with one face each, 60 are held out. Balanced
accuracy of the head on the held-out faces; chance is 0.333. A client labels four faces of each
expression, the other half has no labels.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from statistics import mean, stdev
from typing import Any

import torch

from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation
from fedaudit.data.expressions import expressions
from fedaudit.data.face_set import FaceSet
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.federation.fedavg import FedAvg
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.utility import class_accuracy, measure

CLIENTS, PEOPLE, STEPS = 5, 30, 8


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    clients: int = CLIENTS
    steps: int = STEPS
    lr: float = 0.02
    own_heads: bool = False
    stretch: int = 1
    """Rounds of this row for each round of the others."""


class ExpressionFedAvg(FedAvg):
    """FedAvg whose head tells expressions apart; every photo has its label."""

    def classes(self, faces: FaceSet) -> tuple[str, ...]:
        """The expressions."""
        return faces.expressions


ALONE = {"radius": 0.3, "min_size": 1, "max_clusters": 6}
PEOPLE_ROWS = (
    Row("central", "fedavg", clients=1, steps=CLIENTS * STEPS),
    Row("fedavg", "fedavg"),
    Row("fedavg, own heads", "fedavg", own_heads=True),
    Row("fedsgd, lr 0.1, 8 × the rounds", "fedsgd", lr=0.1, stretch=STEPS),
    Row("fedprox", "fedprox"),
    Row("fedgc, λ = 500", "fedgc", {"strength": 500.0}),
    Row("fedgc, λ = 100", "fedgc"),
    Row("privacyface, ε = 1", "privacyface"),
    Row("privacyface, T = 1, ε = 1", "privacyface", ALONE),
    Row("privacyface, T = 1, ε = 100", "privacyface", {**ALONE, "epsilon": 100.0}),
    Row("privacyface, T = 1, no noise", "privacyface", {**ALONE, "epsilon": 1e6}),
    Row("private_projector", "private_projector"),
    Row("private_projector, 2 devices", "private_projector", clients=2, steps=16),
    Row("fedavg, own heads, pre-trained", "private_projector", {"private": ("head.",)}),
    Row("solomon_woubie, supervised", "solomon_woubie"),
    Row("solomon_woubie, secure", "solomon_woubie", {"secure": True}),
    Row("solomon_woubie, unsupervised", "solomon_woubie", {"supervised": False}, steps=4, lr=0.05),
    Row("fedavg, 30 clients", "fedavg", clients=PEOPLE, steps=4),
    Row("fedface, 30 clients, lr 0.3", "fedface", clients=PEOPLE, steps=4, lr=0.3),
    Row("fedface, no spreadout, lr 0.3", "fedface", {"spread_steps": 0}, PEOPLE, 4, 0.3),
)
EXPRESSION_ROWS = (
    Row("central, all labels", "benchmark", clients=1, steps=CLIENTS * STEPS // 2),
    Row("fedavg, all labels", "benchmark", steps=STEPS // 2),
    Row(
        "central, half the labels",
        "fedaffect",
        {"shots": 4 * CLIENTS, "unlabelled_weight": 0.0},
        clients=1,
        steps=CLIENTS * STEPS // 2,
    ),
    Row(
        "fedavg, half the labels",
        "fedaffect",
        {"shots": 4, "unlabelled_weight": 0.0},
        steps=STEPS // 2,
    ),
    Row("fedaffect, half the labels", "fedaffect", {"shots": 4}, steps=STEPS // 2),
)

Measure = Callable[[Simulation, State], tuple[float, ...]]


@cache
def moods() -> FaceSet:
    """The faces with expressions."""
    return expressions(size=32)


def simulation_of(row: Row, faces: FaceSet, seed: int, **settings: Any) -> Simulation:
    """The row's federation."""
    federation = Federation(
        clients=row.clients,
        training=LocalTraining(row.lr, row.steps, 16, momentum=0.9),
        **settings,
    )
    defense, kept = (
        ("private_projector", {"private": ("head.",)}) if row.own_heads else ("none", {})
    )
    return Simulation(
        network=ModelSpec("face"),
        faces=faces,
        split=split(faces, federation),
        federation=federation,
        method=ExpressionFedAvg()
        if row.method == "benchmark"
        else create("methods", row.method, row.settings),
        defense=create("defenses", defense, kept),
        seed=seed,
    )


def verified(simulation: Simulation, state: State) -> tuple[float, ...]:
    """Balanced accuracy of verification, and the area under the ROC."""
    utility = measure(simulation, state, rounds=0, seconds=0.0)
    assert utility is not None
    return utility.accuracy.value, utility.auc


def named(simulation: Simulation, state: State) -> tuple[float, ...]:
    """Balanced accuracy of the head."""
    found = class_accuracy(simulation, state)
    assert found is not None
    assert found.held_out
    return (found.accuracy,)


def run(simulation: Simulation, marks: tuple[int, ...], measured: Measure) -> list[float]:
    """Accuracy at each mark (a number of rounds), then what else is measured at the last."""
    state, done = simulation.fresh(), 0
    found: list[tuple[float, ...]] = []
    for mark in marks:
        state, _ = simulation.train(state, range(done + 1, mark + 1))
        done = mark
        found.append(measured(simulation, state))
    return [*(values[0] for values in found), *found[-1][1:]]


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="ten rounds")
    parser.add_argument("--seeds", type=int, default=1, help="runs that are averaged")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    marks = (0, 5, 10) if options.quick else (0, 10, 20)
    tables: tuple[tuple[str, tuple[Row, ...], Callable[[Row, int], Simulation], Measure], ...] = (
        ("verification", PEOPLE_ROWS, lambda r, s: simulation_of(r, orl(size=32), s), verified),
        (
            "expressions",
            EXPRESSION_ROWS,
            lambda r, s: simulation_of(r, moods(), s, photos=1, held_out=60),
            named,
        ),
    )
    for title, rows, made, measured in tables:
        chosen = [row for row in rows if row.name.startswith(options.only)]
        if not chosen:
            continue
        last = f"{'AUC':>8}" if measured is verified else ""
        print(
            f"{title:32}" + "".join(f"{f'r{m}':>8}" for m in marks) + f"{last}{'±':>8}{'CPU s':>8}"
        )
        for row in chosen:
            started = time.process_time()
            own = tuple(mark * row.stretch for mark in marks)
            runs = [run(made(row, seed), own, measured) for seed in range(options.seeds)]
            numbers = "".join(f"{mean(values):8.3f}" for values in zip(*runs, strict=True))
            ends = [values[len(marks) - 1] for values in runs]
            spread = f"{stdev(ends):8.3f}" if len(ends) > 1 else f"{'—':>8}"
            seconds = (time.process_time() - started) / options.seeds
            print(f"{row.name:32}{numbers}{spread}{seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main()
