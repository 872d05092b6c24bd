"""What a malicious server gets out of a batch: the share of faces that come back.

    python benchmarks/malicious.py            # about 5 minutes on one core
    python benchmarks/malicious.py --quick    # one seed, two batch sizes
    python benchmarks/malicious.py --fishing torchvision:resnet18 timm:vit_tiny_patch16_224

A fresh face network, ORL at 32 px, one step of FedSGD. The server sends a model of its own making;
a face counts as recovered from 30 dB PSNR. Medians over seeds; each seed draws other parameters and
another client.

`--fishing` sends a fished head to stock networks instead: fresh, in evaluation mode; a batch a seed
of eight color photos of p09 and p10 of OpenPeople at 64 px, on whom nothing was tuned, each with a
label of its own. "Share" is the fished photo's in the length of the gradient below the head.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, median
from typing import Any

import torch
from kept_rows import Row
from ten_people import Judge, batches
from torch import Tensor, nn

from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation
from fedaudit.core.shared import Update
from fedaudit.core.threat_models import threat_model
from fedaudit.data.openpeople import openpeople
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.fedsgd import FedSGD
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.class_head import ClassHead, find_class_head
from fedaudit.models.facenet import criterion_of
from fedaudit.scoring.image_metrics import PSNR, SSIM
from fedaudit.scoring.pairing import pair

RECOVERED = 30.0
"""PSNR in dB from which a face counts as recovered."""
FISHED, SIZE = 8, 64
"""Photos a batch, pixels a side, of fishing."""
CLASSES = 10
LINES: dict[str, dict[str, Any]] = {"imprint": {}, "trap_weights": {}}


def share_of(network: nn.Module, images: Tensor, labels: Tensor, head: ClassHead) -> Tensor:
    """Each image's share `[N]` in the length of the gradient below the head."""
    named = network.named_parameters()
    below = [p for name, p in named if name not in (head.name, head.bias)]
    sizes = []
    for image, label in zip(images, labels, strict=True):
        loss = criterion_of(network)(network(image[None]), label[None])
        slopes = torch.autograd.grad(loss, below, allow_unused=True)
        sizes.append(torch.stack([s.double().norm() for s in slopes if s is not None]).norm())
    return torch.stack(sizes) / torch.stack(sizes).sum()


def fish(factory: str, mode: str, seed: int, judge: Judge, photos: list[int]) -> Row:
    """One batch through a network with a fished head."""
    images, labels = judge.faces.images[photos], torch.arange(FISHED)
    spec = ModelSpec(factory, {"classes": CLASSES, "image_size": SIZE})
    attack = create(
        "attacks", "fishing", {"mode": mode, "target_class": FISHED * (mode != "class")}
    )
    honest = build(spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    state = {name: value.detach().clone() for name, value in honest.state_dict().items()}
    _, sent = attack.broadcast(spec, state, generator=generator)
    network = build(spec, sent).eval()
    head = find_class_head(network, images.shape[1:])
    assert head is not None
    shares = share_of(network, images, labels, head)
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    loss = criterion_of(network)(network(images), labels)
    slopes = torch.autograd.grad(loss, list(named.values()))
    seen = Observation(
        model=spec,
        before=dict(sent),
        shared=(Update("gradient", dict(zip(named, slopes, strict=True)), FISHED),),
        image_shape=(3, SIZE, SIZE),
        batch_size=FISHED,
        num_classes=CLASSES,
        training=LocalTraining(batch_size=FISHED, batch_norm="eval"),
        defense=(),
    )
    started = time.process_time()
    found = attack(seen, generator=generator)
    first, most = found.images[:1], int(shares.argmax())
    return {
        "share": float(shares[most]),
        "SSIM": float(SSIM()(images[most : most + 1], first)),
        "PSNR": float(PSNR()(images[most : most + 1], first)),
        "label": bool(found.labels[0] == labels[most]),
        "first": sum(judge.first(first, [photos[most]])),
        "seconds": time.process_time() - started,
    }


def fishing(networks: Sequence[str], seeds: int) -> None:
    """A line for each network and mode."""
    judge = Judge(openpeople(size=SIZE))
    print("| network | mode | batches | share (least) | SSIM (least) | PSNR, dB | label | "
          "first of ten | CPU s |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for factory in networks:
        for mode in ("feature", "class"):
            try:
                rows = [
                    fish(factory, mode, seed, judge, next(batches(judge.faces, FISHED, 1, seed)))
                    for seed in range(seeds)
                ]
            except AttackError as refused:
                print(f"| {factory} | {mode} | {refused} |", flush=True)
                continue
            share, ssim, psnr = ([row[key] for row in rows] for key in ("share", "SSIM", "PSNR"))
            print(f"| {factory} | {mode} | {len(rows)} | {mean(share):.2f} ({min(share):.2f}) | "
                  f"{mean(ssim):.2f} ({min(ssim):.2f}) | {mean(psnr):.1f} | "
                  f"{sum(row['label'] for row in rows)} of {len(rows)} | "
                  f"{sum(row['first'] for row in rows)} of {len(rows)} | "
                  f"{mean(row['seconds'] for row in rows):.0f} |", flush=True)  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fishing", nargs="+", metavar="NETWORK", help="names of networks")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.fishing:
        fishing(asked.fishing, asked.seeds)
        return
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
