"""Side by side with the peer `breaching` 0.1.2 on torchvision's ResNet-18, trained.

    python benchmarks/peers/stock_resnet.py                     # all lines, 30 CPU minutes
    python benchmarks/peers/stock_resnet.py --lines "batch 1" --times 1

Color faces of OpenPeople at 64 px, network trained on eight of the ten people, photos of the two
others, on whom nothing was tuned. Both sides get the network, one gradient, number and size of the
images; the peer is handed the labels too, which ours does without. The peer runs its preset of
inverting gradients with the published weight of total variation and with a hundred times that, as
many steps as fit into our CPU seconds (`--times 1`) and into ten times as many; its steps a second
are measured first.
"""

import argparse
import copy
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from exchange import Peer, run_peer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from subspace import SIZE, Judge, batches, resnet, train

from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.data.openpeople import openpeople
from fedaudit.models.batch_norm import client_mode
from fedaudit.scoring.image_metrics import PSNR, SSIM
from fedaudit.scoring.pairing import pair

CLASSES = 8
LINES = {"batch 1": (1, "eval"), "batch 4": (4, "eval"), "batch 4, train mode": (4, "train")}
"""Photos and mode of batch norm."""
PEERS = (
    Peer("breaching: inverting gradients", "invertinggradients", 0),
    Peer("breaching: the same, TV 20", "invertinggradients", 0, 20.0),
)
TRIED = 10
"""Peer steps from which its steps a second are measured."""


def observe(model: nn.Module, images: Tensor, labels: Tensor, mode: str) -> Observation:
    """One client's gradient, and what its server knows besides; labels for those who take them."""
    training = LocalTraining(batch_size=len(images), batch_norm=mode)  # type: ignore[arg-type]
    client = client_mode(copy.deepcopy(model), training)
    named = dict(client.named_parameters())
    gradients = torch.autograd.grad(F.cross_entropy(client(images), labels), list(named.values()))
    return Observation(
        model=ModelSpec("torchvision:resnet18", {"classes": CLASSES, "image_size": SIZE}),
        before={n: value.detach().clone() for n, value in model.state_dict().items()},
        shared=(Update("gradient", dict(zip(named, gradients, strict=True)), len(images)),),
        image_shape=(3, SIZE, SIZE),
        batch_size=len(images),
        num_classes=CLASSES,
        training=training,
        defense=(),
        labels=labels,
    )


def peer_for(seen: Observation, peer: Peer, seconds: float, seed: int) -> Reconstruction:
    """The peer with as many steps as fit into `seconds`."""
    trial = run_peer(seen, replace(peer, steps=TRIED), seed)
    steps = max(1, round(TRIED * seconds / trial.seconds))
    return run_peer(seen, replace(peer, steps=steps), seed)


class Table:
    """Scores and prints lines."""

    def __init__(self, faces: FaceSet) -> None:
        self.faces, self.judge = faces, Judge(faces)
        print("| line | attack | batches | SSIM (least) | PSNR | first of ten | steps | CPU s |")
        print("|---|---|---|---|---|---|---|---|")

    def add(
        self, line: str, attack: str, chosen: list[list[int]], found: list[Reconstruction]
    ) -> None:
        """A line of some batches of photos and what came back of each."""
        ssim, psnr, first = [], [], []
        for rows, one in zip(chosen, found, strict=True):
            images, unknown = self.faces.images[rows], torch.full((len(rows),), -1)
            rebuilt = one.images[list(pair(images, unknown, one.images, unknown))]
            ssim += SSIM()(images, rebuilt).tolist()
            psnr += PSNR()(images, rebuilt).tolist()
            first += self.judge.first(rebuilt, rows)
        seconds = mean(one.seconds for one in found)
        print(
            f"| {line} | {attack} | {len(found)} | {mean(ssim):.2f} ({min(ssim):.2f}) | "
            f"{mean(psnr):.1f} | {sum(first)} of {len(first)} | {found[0].iterations} | "
            f"{seconds:.0f} |",
            flush=True,
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--targets", type=int, default=1, help="batches a line")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faces = openpeople(size=SIZE)
    torch.manual_seed(options.seed)
    model = resnet(18)(CLASSES)
    train(model, faces, options.seed)
    table = Table(faces)
    for line in options.lines:
        size, mode = LINES[line]
        chosen = list(batches(faces, size, options.targets, options.seed))
        seen = [observe(model, faces.images[rows], torch.arange(size), mode) for rows in chosen]
        attack = create("attacks", "subspace_matching", {})
        ours = [
            attack(replace(one, labels=None), generator=generator_for("attack", number))
            for number, one in enumerate(seen)
        ]
        table.add(line, "fedaudit: subspace_matching", chosen, ours)
        for times in options.times:
            for peer in PEERS:
                found = [
                    peer_for(one, peer, times * mine.seconds, number)
                    for number, (one, mine) in enumerate(zip(seen, ours, strict=True))
                ]
                table.add(line, f"{peer.name}, {times} × our seconds", chosen, found)


if __name__ == "__main__":
    main()
