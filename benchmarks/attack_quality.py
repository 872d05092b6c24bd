"""What the attacks reach, against batch size, image size and training: docs/benchmarks.md.

    python benchmarks/attack_quality.py                    # about an hour on one core
    python benchmarks/attack_quality.py --quick            # one target a line
    python benchmarks/attack_quality.py --size 64 --models fresh --batches 1 4

All attacks run with their default steps on the same updates of the default face network (ORL, 3
clients of 10 people, batches of different people as far as they go; *trained* is round 13 of
FedAvg). `joint` moves all images of a batch at once, with as many steps as fit in about the same
seconds.
"""

import argparse
import json

import torch
from scoring import HEAD, Judge, shown, summary

from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import Attack
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation, with_keys
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.fedavg import FedAvg
from fedaudit.federation.simulation import Simulation

ROUNDS = 12
MODELS = ("fresh", "trained")


def lines(batch: int) -> dict[str, Attack]:
    """The attacks that a batch size is tried with."""
    found: dict[str, Attack] = {
        "inverting_gradients": inverting_gradients(),
        "gan_inversion": gan_inversion(),
        "subspace_matching": subspace_matching(),
        "map_inversion": create("attacks", "map_inversion", {}),
        "gan_inversion, no first fully connected layer": gan_inversion(first_fully_connected=False),
    }
    if batch == 1:
        for name in ("liu_2021", "gifd", "gias", "gion", "grad_inversion"):
            found[name] = create("attacks", name, {})
    if batch > 1:
        # A joint step costs about half of what a sweep of single-image steps does at batch 4 and 8.
        found["gan_inversion, joint"] = gan_inversion(
            rounds=0, latent_steps=40, stage_steps=80, pixel_steps=300
        )
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one target a line")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--attacks", nargs="+", help="only these lines")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args()
    torch.set_num_threads(1)
    federation = with_keys(Federation(), {"clients": 3, "rounds": ROUNDS, "lr": 0.05})
    faces = orl(size=options.size)
    parts = split(faces, federation)
    judge = Judge.of(faces, parts)
    simulation = Simulation(ModelSpec("face"), faces, parts, federation, FedAvg(), NoDefense())
    fresh = simulation.fresh()
    states = {"fresh": (fresh, 1)}
    if "trained" in options.models:
        states["trained"] = (simulation.train(fresh, range(1, ROUNDS + 1))[0], ROUNDS + 1)
    rows = []
    print(f"{'model':8} {'batch':>5} {'attack':30} {HEAD}", flush=True)
    for name in options.models:
        state, number = states[name]
        for batch in options.batches:
            targets = 6 if batch == 1 else max(1, 8 // batch)
            for label, attack in lines(batch).items():
                if options.attacks and label not in options.attacks:
                    continue
                images: list[ImageScore] = []
                seconds: list[float] = []
                for target in range(1 if options.quick else targets):
                    capture = simulate(
                        simulation,
                        state,
                        target=target,
                        batch_size=batch,
                        training=LocalTraining(0.1, 1, batch),
                        threat=threat_model("D"),
                        round=number,
                    )
                    generator = generator_for("attack", target)
                    result = attack(capture.seen, generator=generator)
                    images += judge.score(capture, result)
                    seconds.append(result.seconds)
                row = {"model": name, "batch": batch, "attack": label, **summary(images, seconds)}
                rows.append(row)
                print(f"{name:8} {batch:5} {label:30} {shown(row)}", flush=True)
    print(judge.ceiling)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
