"""Whether a change that is read as SGD's is told to be of an optimizer that evens steps out.

    python benchmarks/told_optimizers.py                     # all, 20 CPU minutes
    python benchmarks/told_optimizers.py --only torchvision:resnet18 timm:vit_small_patch16_224
    python benchmarks/told_optimizers.py --training          # batch norm as clients run it
    python benchmarks/told_optimizers.py --trained 20        # pre-trained for 20 steps

Clients train networks of `fedaudit list networks` on eight color photos of p09 and p10 of
OpenPeople, fresh or pre-trained as in `deployed_networks.py`, by torch's optimizers, so many steps
on all of them, with and without weight decay. `evened_out` looks at what changed, as the library,
inspection and audits do. Steps of Adam and the like should be told, those of SGD never, and neither
what defenses make of them: noise, signs, quantization, pruning.

The table has, for each network, how many of the changes are told, of how many, and which are told
wrongly. Kurtosis and ratio are those by which it is decided, here of the plain change by SGD that
is nearest to being told.
"""

import argparse
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from deployed_networks import Line, network_of
from ten_people import batches
from torch import Tensor, nn

from fedaudit.captures.format.contradictions import ALIKE, EVEN, FEW, evened_out
from fedaudit.data.openpeople import openpeople
from fedaudit.models.facenet import criterion_of

NETWORKS = (
    ("torchvision:resnet18", 64),
    ("torchvision:mobilenet_v2", 64),
    ("torchvision:efficientnet_b0", 64),
    ("torchvision:convnext_tiny", 64),
    ("torchvision:swin_t", 64),
    ("timm:vit_small_patch16_224", 64),
    ("mobilefacenet", 112),
    ("iresnet18", 112),
)
STEPS = (1, 4, 16)
BATCH = 8
Update = Mapping[str, Tensor]
Made = Callable[[Any], torch.optim.Optimizer]


@dataclass(frozen=True)
class Way:
    """An optimizer, as people set it, and whether it evens steps out."""

    name: str
    made: Made
    evens: bool


WAYS = (
    Way("SGD", lambda p: torch.optim.SGD(p, 0.01), evens=False),
    Way("SGD, momentum", lambda p: torch.optim.SGD(p, 0.01, 0.9), evens=False),
    Way("SGD, decay", lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=5e-4), evens=False),
    Way("Adam, 0.001", lambda p: torch.optim.Adam(p, 1e-3), evens=True),
    Way("Adam, 0.0001", lambda p: torch.optim.Adam(p, 1e-4), evens=True),
    Way("AdamW, decay", lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.05), evens=True),
    Way("RMSprop", lambda p: torch.optim.RMSprop(p, 1e-3), evens=True),
    Way("Adagrad", lambda p: torch.optim.Adagrad(p, 1e-2), evens=True),
)


def changes(model: nn.Module, images: Tensor, labels: Tensor, way: Way) -> Iterator[Update]:
    """What clients share after each number of steps."""
    client = copy.deepcopy(model)
    optimizer, before = way.made(client.parameters()), dict(model.named_parameters())
    torch.manual_seed(0)
    for step in range(1, max(STEPS) + 1):
        optimizer.zero_grad()
        criterion_of(client)(client(images), labels).backward()
        optimizer.step()
        if step in STEPS:
            yield {name: (p - before[name]).detach() for name, p in client.named_parameters()}


def defended(update: Update) -> Iterator[tuple[str, Update]]:
    """What usual defenses make of a change, and the change itself."""
    yield "", update
    generator = torch.Generator().manual_seed(0)
    for share in (0.1, 1.0, 10.0):
        size = share * float(torch.stack([t.norm() for t in update.values()]).norm())
        deviation = size / sum(t.numel() for t in update.values()) ** 0.5
        noise = {n: torch.randn(t.shape, generator=generator) for n, t in update.items()}
        yield f"noise {share}", {n: t + deviation * noise[n] for n, t in update.items()}
    yield "signs", {name: 1e-3 * t.sign() for name, t in update.items()}
    for levels in (1, 4):
        units = {n: t.abs().max().clamp_min(1e-30) / levels for n, t in update.items()}
        drawn = {n: torch.rand(t.shape, generator=generator) for n, t in update.items()}
        whole = {n: units[n] * (t / units[n] + drawn[n]).floor() for n, t in update.items()}
        yield f"{levels} levels", whole
    yield "pruned", {n: t * (t.abs() >= t.abs().max() / 10) for n, t in update.items()}
    yield "bfloat16", {n: t.bfloat16().float() for n, t in update.items()}


def evenness(update: Update) -> tuple[float, float]:
    """The kurtosis of the middle layer, and the ratio of layers' sizes."""
    shapes, sizes = [], []
    for tensor in update.values():
        values = tensor.double().flatten()
        values = values[values != 0]
        if len(values) >= FEW:
            shapes.append(float(values.pow(4).mean() / values.square().mean() ** 2))
            sizes.append(float(values.square().mean().sqrt()))
    if not shapes:
        return float("nan"), float("nan")
    low, high = np.quantile(sizes, (0.1, 0.9))
    return float(np.median(shapes)), float(high / low)


def measure(network: str, size: int, options: argparse.Namespace) -> None:
    """Print the rows of one network, and what is told wrongly."""
    model = network_of(Line(network, size, BATCH, {}), options.seed, options)
    faces = openpeople(size=size)
    images = faces.images[next(batches(faces, BATCH, 1, options.seed, options.people))]
    labels = torch.arange(BATCH)
    told: dict[bool, list[bool]] = {True: [], False: []}
    wrong, nearest = [], (float("inf"), float("nan"), float("nan"))
    for way in WAYS:
        for steps, change in zip(STEPS, changes(model, images, labels, way), strict=True):
            for done, update in defended(change):
                if way.evens and done:  # what a defense made of Adam's steps may be anything
                    continue
                told[way.evens].append(evened_out(update))
                kurtosis, ratio = evenness(update)
                margin = abs(max(kurtosis / EVEN, ratio / ALIKE) - 1)
                if not done and not way.evens:
                    nearest = min(nearest, (margin, kurtosis, ratio))
                if told[way.evens][-1] != way.evens:
                    name = (
                        f"{way.name}{', ' + done if done else ''}, {steps} step{'s'[: steps > 1]}"
                    )
                    wrong.append(f"{name} ({kurtosis:.1f}, {ratio:.1f})")
    adaptive, plain = told[True], told[False]
    print(
        f"| {network} | {size} | {sum(adaptive)} of {len(adaptive)} | "
        f"{sum(plain)} of {len(plain)} | {nearest[1]:.1f}, {nearest[2]:.1f} | "
        f"{'; '.join(wrong) or '–'} |",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for name, _ in NETWORKS]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    parser.add_argument("--trained", type=int, default=0, help="steps of pre-training")
    parser.add_argument("--training", action="store_true", help="batch norm in training mode")
    parser.add_argument("--people", nargs=2, default=["p09", "p10"], metavar="PERSON")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(
        "| network | px | told of adaptive steps | of SGD's | SGD's nearest: kurtosis, ratio | "
        "wrong (kurtosis, ratio) |\n|---|---|---|---|---|---|"
    )
    for network, size in NETWORKS:
        if network in options.only:
            measure(network, size, options)


if __name__ == "__main__":
    main()
