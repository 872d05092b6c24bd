"""What a malicious server gets out of a batch: the share of faces that come back.

    python benchmarks/malicious.py            # about 5 minutes on one core
    python benchmarks/malicious.py --quick    # one seed, two batch sizes

A fresh face network, ORL at 32 px, one step of FedSGD. The server sends a model of its own making;
a face counts as recovered from 30 dB PSNR. Medians over seeds; each seed draws other parameters and
another client.
"""

import argparse
import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation
from fedaudit.core.threat_models import threat_model
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.fedsgd import FedSGD
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.image_metrics import PSNR
from fedaudit.scoring.pairing import pair

RECOVERED = 30.0
"""PSNR in dB from which a face counts as recovered."""
LINES: dict[str, dict[str, Any]] = {"imprint": {}, "trap_weights": {}}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    batches, seeds = ([8, 32], 1) if asked.quick else (asked.batches, asked.seeds)
    # A client of 30 people with 5 photos each has enough for the largest batch.
    federation = replace(Federation(), clients=1)
    faces = orl(size=32)
    simulation = Simulation(
        ModelSpec("face"), faces, split(faces, federation), federation, FedSGD(), NoDefense()
    )
    print(f"{'attack':14} {'batch':>5} {'recovered':>9} {'median dB':>9} {'s/update':>8}")
    for name, settings in LINES.items():
        for batch in batches:
            shares, levels, seconds = [], [], []
            for seed in range(seeds):
                attack = create("attacks", name, settings)
                capture = simulate(
                    simulation,
                    simulation.fresh(),
                    target=seed,
                    batch_size=batch,
                    training=LocalTraining(batch_size=batch),
                    threat=threat_model("G"),
                    seed=seed,
                    malicious=attack,
                )
                started = time.process_time()
                found = attack(capture.seen, generator=torch.Generator().manual_seed(seed))
                seconds.append(time.process_time() - started)
                assert capture.secret is not None
                secret = capture.secret
                order = pair(secret.images, secret.labels, found.images, found.labels)
                reached = PSNR()(secret.images, found.images[list(order)])
                shares.append(float((reached >= RECOVERED).float().mean()))
                levels.append(float(reached.median()))
            print(f"{name:14} {batch:5} {median(shares):9.2f} {median(levels):9.1f} "
                  f"{median(seconds):8.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
