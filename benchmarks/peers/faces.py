"""Side by side with the peer `breaching` 0.1.2 on face recognition, for equal CPU seconds.

    python benchmarks/peers/faces.py                    # 32 px, batch 1, 4, 8, 16
    python benchmarks/peers/faces.py --size 64
    python benchmarks/peers/faces.py --quick            # batch 1 and 4, one target

The default face network (flattened map, embedding, CosFace), fresh, ORL. Labels are granted to both
sides. Our attacks run with their defaults. The peer gets, for each of its configurations, as many
steps as fit into the CPU seconds of our `gan_inversion` on the same update, schedule and all; its
steps a second are measured first. The last line is the ceiling: the originals in place of
reconstructions.
"""

import argparse
import json
from dataclasses import replace
from statistics import mean, median
from typing import Any

import torch
from exchange import Peer, run_peer

from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.fedsgd import FedSGD
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import average_with_mirror, calibrate, embed_split
from fedaudit.scoring.score import score

OURS = ("gan_inversion", "inverting_gradients")
PEERS = (
    Peer("breaching: inverting gradients", "invertinggradients", 0),
    Peer("breaching: the same, TV 1e-2", "invertinggradients", 0, 1e-2),
    # Its feature term presumes a last layer with bias, which a margin head has not.
    Peer("breaching: modern, TV 1e-2", "modern", 0, 1e-2,
         settings=("regularization.features.scale=0",)),
)  # fmt: skip
TRIED = 30
"""Peer steps from which its steps a second are measured."""
TARGETS = {1: 5, 4: 2, 8: 1, 16: 1}


def peer_for(seen_by: Capture, peer: Peer, seconds: float, target: int) -> Reconstruction:
    """The peer with as many steps as fit."""
    trial = run_peer(seen_by.seen, replace(peer, steps=TRIED), target)
    steps = max(1, round(TRIED * seconds / trial.seconds))
    return run_peer(seen_by.seen, replace(peer, steps=steps), target)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--batch", type=int, nargs="*", default=list(TARGETS))
    parser.add_argument("--quick", action="store_true", help="batch 1 and 4, one target")
    parser.add_argument("--json", action="store_true", help="machine-readable, at the end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    federation = replace(Federation(), clients=2)
    faces, full = orl(size=options.size), orl(size=112)
    parts = split(faces, federation)
    embed = average_with_mirror(load_embedder().embed)
    references, probes = embed_split(full, faces, parts, embed)
    gallery = calibrate(references, probes, fmr=1e-3, photos=200)
    simulation = Simulation(ModelSpec("face"), faces, parts, federation, FedSGD(), NoDefense())
    state = simulation.fresh()
    print(f"{'batch':>5} {'attack':32} {'SSIM':>6} {'worst':>6} {'LPIPS':>6} {'rank-1':>7} "
          f"{'steps':>6} {'CPU s':>7}", flush=True)  # fmt: skip
    rows: list[dict[str, Any]] = []
    for batch in (1, 4) if options.quick else options.batch:
        captures = [
            simulate(
                simulation,
                state,
                target=target,
                batch_size=batch,
                training=LocalTraining(0.1, 1, batch),
                threat=threat_model("D", ("labels",)),
            )
            for target in range(1 if options.quick else TARGETS.get(batch, 1))
        ]
        limits: list[float] = []
        for name in (*OURS, *PEERS):
            found = []
            for target, capture in enumerate(captures):
                if isinstance(name, Peer):
                    found.append(peer_for(capture, name, limits[target], target))
                else:
                    attack, generator = create("attacks", name, {}), generator_for("attack", target)
                    found.append(attack(capture.seen, generator=generator))
            # The first of ours sets what the peer may spend.
            limits = limits or [f.seconds for f in found]
            images = []
            for capture, one in zip(captures, found, strict=True):
                assert capture.secret is not None
                images += score(capture.secret, one, gallery=gallery, embed=embed)[0]
            row = {
                "batch": batch,
                "attack": name.name if isinstance(name, Peer) else f"fedaudit: {name}",
                "ssim": mean(s.metrics["ssim"] for s in images),
                "worst": min(s.metrics["ssim"] for s in images),
                "lpips": mean(s.metrics.get("lpips", 0.0) for s in images),
                "rank1": f"{sum(s.rank == 1 for s in images)}/{len(images)}",
                "steps": found[0].iterations,
                "seconds": median(f.seconds for f in found),
            }
            rows.append(row)
            print(f"{batch:5} {row['attack']:32} {row['ssim']:6.2f} {row['worst']:6.2f} "
                  f"{row['lpips']:6.2f} {row['rank1']:>7} {row['steps']:6} {row['seconds']:7.1f}",
                  flush=True)  # fmt: skip
    print(f"ceiling: {gallery.ceiling_first}/{gallery.ceiling_n} originals rank-1")
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
