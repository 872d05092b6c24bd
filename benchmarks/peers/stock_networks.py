"""Side by side with the peer `breaching` 0.1.2 on networks that people use, trained.

    python benchmarks/peers/stock_networks.py --results FILE      # goes on from the file
    python benchmarks/peers/stock_networks.py --lines "batch 1" --times 1
    python benchmarks/peers/stock_networks.py --lines "batch 1" --leakpro FOLDER
    python benchmarks/peers/stock_networks.py --lines "MobileFaceNet, 112 px" --targets 1 --times 1

Color faces of OpenPeople, photos of p09 and p10, on whom nothing was tuned. torchvision's ResNet-18
at 64 px is trained on the eight other people; networks of face recognition at 112 px are
pre-trained for 20 steps on generated faces. Both sides get the network, one gradient, number and
size of the images; the peer is handed the labels too, which ours does without. The peer runs its
preset of inverting gradients with the published weight of total variation and with a hundred times
that, and its preset "modern", as many steps as fit into our CPU seconds (`--times 1`) and into ten
times as many; its steps a second are measured first.

LeakPro, whose package in the registry is empty, runs from a checkout that `--leakpro` names, in
evaluation mode alone, as it attacks. It simulates the client itself and is handed the photo for
that; what counts is the image of its least loss, not of its best SSIM to the photo, which it
returns.
"""

import argparse
import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from exchange import Peer, run_leakpro, run_peer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from kept_rows import KeptRows, Row, add_results
from stock_clients import resnet, train
from ten_people import Judge, batches

from fedaudit.core.observation import BatchNormMode, LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.data.openpeople import openpeople
from fedaudit.federation.pretraining import pretrain
from fedaudit.models.batch_norm import client_mode, running_statistics
from fedaudit.models.build_network import build, load, parameters_of
from fedaudit.models.facenet import criterion_of
from fedaudit.scoring.image_metrics import PSNR, SSIM
from fedaudit.scoring.pairing import pair

CLASSES = 8
PRETRAINED = 20
"""Steps on generated faces, of face recognition's networks."""


@dataclass(frozen=True)
class Line:
    """Network, pixels a side, photos a batch and mode of batch norm."""

    network: str
    size: int
    batch: int
    mode: BatchNormMode


RESNET = "torchvision:resnet18"
LINES = {
    "batch 1": Line(RESNET, 64, 1, "eval"),
    "batch 4": Line(RESNET, 64, 4, "eval"),
    "batch 4, train mode": Line(RESNET, 64, 4, "train"),
    "batch 8, train mode": Line(RESNET, 64, 8, "train"),
    "iResNet-18, 112 px": Line("iresnet18", 112, 1, "eval"),
    "MobileFaceNet, 112 px": Line("mobilefacenet", 112, 1, "eval"),
}
PEERS = (
    Peer("breaching: inverting gradients", "invertinggradients", 0),
    Peer("breaching: the same, TV 20", "invertinggradients", 0, 20.0),
    Peer("breaching: modern", "modern", 0),
)
TRIED = 10
"""Peer steps from which its steps a second are measured."""


def network_of(line: Line, faces: FaceSet, seed: int) -> tuple[ModelSpec, nn.Module]:
    """Trained on others than those who are attacked."""
    spec = ModelSpec(line.network, {"classes": CLASSES, "image_size": line.size})
    if line.network == RESNET:
        torch.manual_seed(seed)
        model = resnet(18)(CLASSES)
        train(model, faces, seed)
        return spec, model
    model = build(spec, seed=seed)
    state = {**parameters_of(model), **running_statistics(model)}
    load(model, pretrain(spec, state, public="synthetic", steps=PRETRAINED, seed=seed))
    return spec, model


def observe(
    spec: ModelSpec, model: nn.Module, images: Tensor, labels: Tensor, mode: BatchNormMode
) -> Observation:
    """One client's gradient, and what its server knows besides; labels for those who take them."""
    training = LocalTraining(batch_size=len(images), batch_norm=mode)
    client = client_mode(copy.deepcopy(model), training)
    named = dict(client.named_parameters())
    loss = criterion_of(client)(client(images), labels)
    gradients = torch.autograd.grad(loss, list(named.values()))
    return Observation(
        model=spec,
        before={n: value.detach().clone() for n, value in model.state_dict().items()},
        shared=(Update("gradient", dict(zip(named, gradients, strict=True)), len(images)),),
        image_shape=images.shape[1:],
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

    def __init__(self, faces: FaceSet, kept: KeptRows) -> None:
        self.faces, self.judge, self.kept = faces, Judge(faces), kept

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
                try:
                    found = run(number)
                except subprocess.CalledProcessError:  # what the peer says is above
                    print(f"| {line} | {attack} | it crashed |", flush=True)
                    return []
                kept = [key | self.score(photos, found)]
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
    kept = KeptRows(options.results)
    print("| line | attack | batches | SSIM (least) | PSNR | first of ten | steps | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.lines:
        line = LINES[name]
        faces = openpeople(size=line.size)
        table, (spec, model) = Table(faces, kept), network_of(line, faces, options.seed)
        chosen = list(batches(faces, line.batch, options.targets, options.seed))
        images = [faces.images[rows] for rows in chosen]
        labels = torch.arange(line.batch)
        seen = [observe(spec, model, one, labels, line.mode) for one in images]
        spent = table.add(name, "fedaudit: subspace_matching", chosen, partial(ours, seen))
        for times in options.times:
            budget = [times * seconds for seconds in spent]
            for peer in (PEERS[k] for k in options.peers):
                theirs = partial(breaching, seen, peer, budget)
                table.add(name, f"{peer.name}, {times} × our seconds", chosen, theirs)
            if options.leakpro and line.mode == "eval":
                theirs = partial(leakpro, seen, images, options.leakpro, budget)
                table.add(name, f"LeakPro, {times} × our seconds", chosen, theirs)


if __name__ == "__main__":
    main()
