"""Side by side with the peer `breaching` 0.1.2 on torchvision's ResNet-18, trained.

    python benchmarks/peers/stock_resnet.py --results FILE      # goes on from the file
    python benchmarks/peers/stock_resnet.py --lines "batch 1" --times 1
    python benchmarks/peers/stock_resnet.py --lines "batch 1" --leakpro FOLDER

Color faces of OpenPeople at 64 px, network trained on eight of the ten people, photos of the two
others, on whom nothing was tuned. Both sides get the network, one gradient, number and size of the
images; the peer is handed the labels too, which ours does without. The peer runs its preset of
inverting gradients with the published weight of total variation and with a hundred times that, and
its preset "modern", as many steps as fit into our CPU seconds (`--times 1`) and into ten times as
many; its steps a second are measured first.

LeakPro, whose package in the registry is empty, runs from a checkout that `--leakpro` names, in
evaluation mode alone, as it attacks. It simulates the client itself and is handed the photo for
that; what counts is the image of its least loss, not of its best SSIM to the photo, which it
returns.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from exchange import Peer, run_leakpro, run_peer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from kept_rows import KeptRows, Row, add_results
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
    Peer("breaching: modern", "modern", 0),
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


def fitting(run: Callable[[int], Reconstruction], seconds: float) -> Reconstruction:
    """`run` with as many steps as fit into `seconds`."""
    return run(max(1, round(TRIED * seconds / run(TRIED).seconds)))


def ours(seen: Sequence[Observation], number: int) -> Reconstruction:
    """Without the labels."""
    attack = create("attacks", "subspace_matching", {})
    found: Reconstruction = attack(
        replace(seen[number], labels=None), generator=generator_for("attack", number)
    )
    return found


def breaching(
    seen: Sequence[Observation], peer: Peer, seconds: Sequence[float], number: int
) -> Reconstruction:
    """As long as it may."""

    def run(steps: int) -> Reconstruction:
        return run_peer(seen[number], replace(peer, steps=steps), number)

    return fitting(run, seconds[number])


def leakpro(
    seen: Sequence[Observation],
    images: Sequence[Tensor],
    checkout: Path,
    seconds: Sequence[float],
    number: int,
) -> Reconstruction:
    """As long as it may."""

    def run(steps: int) -> Reconstruction:
        return run_leakpro(seen[number], images[number], checkout, steps, number)

    return fitting(run, seconds[number])


class Table:
    """Scores what came back of each batch, keeps it in a file, prints a line an attack."""

    def __init__(self, faces: FaceSet, file: Path | None) -> None:
        self.faces, self.judge, self.kept = faces, Judge(faces), KeptRows(file)
        print("| line | attack | batches | SSIM (least) | PSNR | first of ten | steps | CPU s |")
        print("|---|---|---|---|---|---|---|---|")

    def add(
        self,
        line: str,
        attack: str,
        chosen: Sequence[list[int]],
        run: Callable[[int], Reconstruction],
    ) -> list[float]:
        """A line of some batches of photos and what `run` brings back of each; CPU seconds."""
        rows = []
        for number, photos in enumerate(chosen):
            key = {"line": line, "attack": attack, "photos": photos}
            kept = self.kept.of(key)
            if not kept:
                kept = [key | self.score(photos, run(number))]
                self.kept.add(kept[0])
            rows.append(kept[0])
        ssim = [one for row in rows for one in row["SSIM"]]
        psnr = [one for row in rows for one in row["PSNR"]]
        first = [one for row in rows for one in row["first"]]
        seconds = [row["seconds"] for row in rows]
        print(
            f"| {line} | {attack} | {len(rows)} | {mean(ssim):.2f} ({min(ssim):.2f}) | "
            f"{mean(psnr):.1f} | {sum(first)} of {len(first)} | {rows[0]['steps']} | "
            f"{mean(seconds):.0f} |",
            flush=True,
        )
        return seconds

    def score(self, photos: list[int], found: Reconstruction) -> Row:
        """One batch."""
        images, unknown = self.faces.images[photos], torch.full((len(photos),), -1)
        rebuilt = found.images[list(pair(images, unknown, found.images, unknown))]
        return {
            "SSIM": SSIM()(images, rebuilt).tolist(),
            "PSNR": PSNR()(images, rebuilt).tolist(),
            "first": self.judge.first(rebuilt, photos),
            "steps": found.iterations,
            "seconds": found.seconds,
        }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--targets", type=int, default=2, help="batches a line")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--peers", type=int, nargs="*", default=list(range(len(PEERS))),
                        help="which configurations of breaching, from 0")  # fmt: skip
    parser.add_argument("--leakpro", type=Path, metavar="FOLDER", help="a checkout of LeakPro")
    add_results(parser)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faces = openpeople(size=SIZE)
    torch.manual_seed(options.seed)
    model = resnet(18)(CLASSES)
    train(model, faces, options.seed)
    table = Table(faces, options.results)
    for line in options.lines:
        size, mode = LINES[line]
        chosen = list(batches(faces, size, options.targets, options.seed))
        images = [faces.images[rows] for rows in chosen]
        seen = [observe(model, one, torch.arange(size), mode) for one in images]
        spent = table.add(line, "fedaudit: subspace_matching", chosen, partial(ours, seen))
        for times in options.times:
            budget = [times * seconds for seconds in spent]
            for peer in (PEERS[k] for k in options.peers):
                theirs = partial(breaching, seen, peer, budget)
                table.add(line, f"{peer.name}, {times} × our seconds", chosen, theirs)
            if options.leakpro and mode == "eval":
                theirs = partial(leakpro, seen, images, options.leakpro, budget)
                table.add(line, f"LeakPro, {times} × our seconds", chosen, theirs)


if __name__ == "__main__":
    main()
