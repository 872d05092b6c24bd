"""What a step of subspace matching costs, in passes of training: by batch, size and parameters.

    python benchmarks/step_cost.py --sizes 32 64 112 224 --chart cost.png    # 4 CPU minutes
    python benchmarks/step_cost.py --only "ResNet-18 train mode" --batch 4 8
    python benchmarks/step_cost.py --searches --only ResNet-18 "ResNet-18 train mode" --batch 1 8

A step evaluates the distance to layers' spans (and to whole maps, where an update has them) with
its derivative: of ten steps of Adam the first to all, the others to every other one in turn, where
there are enough (`SpanMatching`); L-BFGS to all in each. A pass of training is forward and
backward, weights' gradients too. CPU milliseconds of the fastest of fifteen of each, taken in turn,
of one thread; in the last column those of reading the layers' inputs alone, forward and back.
Batches are measured at 64 px, sizes with the first of the batches, on faces of OpenPeople; networks
are fresh, as what they learned costs nothing.

`--searches` makes whole searches instead, of `subspace_matching` by default, through networks that
are trained as in `subspace.py`: their seconds, all that comes before and after included, by the
times that they evaluate the distance of the whole batch.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import altair as alt
import torch
import torch.nn.functional as F
import torchvision
from kept_rows import Row
from stock_clients import Line, network_of, resnet, timm_vit, update_of, vit
from ten_people import batches
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.evidence.common_maps import with_whole_maps
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan, span_distance
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.search.span_matching import are_many
from fedaudit.data.openpeople import openpeople

SIZE = 64


def mobilenet(classes: int) -> nn.Module:
    """The second MobileNet of torchvision."""
    return torchvision.models.mobilenet_v2(num_classes=classes)


LINES = (
    *(Line(f"ResNet-{n}", resnet(n), trained=False, training=False) for n in (18, 34, 50)),
    Line("ResNet-18 train mode", resnet(18), trained=False, training=True),
    Line("MobileNetV2", mobilenet, trained=False, training=False),
    Line("ViT, patches of 16", vit, trained=False, training=False),
    Line("ViT-S", timm_vit, trained=False, training=False),
)


def measured(line: Line, px: int, size: int) -> Row:
    """One network on one batch."""
    images = openpeople(size=px).images[:size].clone()
    model, labels = line.build(8).train(line.training), torch.arange(size) % 8
    reader = InputReader(model, (3, px, px), size)
    spans = find_spans(reader, update_of(model, images, labels), clean=True)
    spans = with_whole_maps(reader, spans, 3 * px**2)
    client, moved = copy.deepcopy(model), images.clone().requires_grad_()
    model.requires_grad_(requires_grad=False)
    in_turn = are_many(spans, 3 * px**2, size)
    halves = (spans[1::2], spans[::2]) if in_turn else (spans, spans)
    whole, odd, even, bare, passed = clocked(
        *(partial(step_down, reader, part, moved) for part in (spans, *halves)),
        partial(read, reader, spans, moved),
        lambda: F.cross_entropy(client(images), labels).backward(),
    )
    step = (whole + 5 * odd + 4 * even) / 10
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return {
        "network": line.name,
        "millions": millions,
        "batch": size,
        "px": px,
        "step": step,
        "passed": passed,
        "ratio": step / passed,
        "whole": whole / passed,
        "bare": bare / passed,
    }


def step_down(reader: InputReader, spans: Sequence[LayerSpan], images: Tensor) -> None:
    """The slope of the distance to some layers' spans."""
    span_distance(reader, spans, images).backward()  # type: ignore[no-untyped-call]


def read(reader: InputReader, spans: Sequence[LayerSpan], images: Tensor) -> None:
    """The network's own part of a step: forward to the last layer that is read, and back."""
    *_, (*_, (_, inputs)) = reader.inputs([span.name for span in spans], images).values()
    inputs.sum().backward()  # type: ignore[no-untyped-call]


def searched(line: Line, px: int, size: int) -> Row:
    """A whole search of one batch, by evaluations of the batch's distance."""
    faces = openpeople(size=px)
    model = network_of(replace(line, trained=True), faces, 0, None)
    rows = next(batches(faces, size, 1, 0))
    images, labels = faces.images[rows], torch.arange(size) % 8
    update = update_of(model, images, labels)
    (passed,) = clocked(lambda: F.cross_entropy(model(images), labels).backward())
    found = fedaudit.attack(model, update, images=size, image_shape=(3, px, px))
    step = 1e3 * found.seconds * size / found.gradient_evaluations
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    told = {"network": line.name, "millions": millions, "batch": size, "px": px}
    return told | {"step": step, "passed": passed, "ratio": step / passed}


def clocked(*works: Callable[[], Any], times: int = 15) -> list[float]:
    """CPU milliseconds of one call of each, of the fastest of some, in turn."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(times):
        for work, own in zip(works, spent, strict=True):
            begun = time.process_time()
            work()
            own.append(time.process_time() - begun)
    return [1e3 * min(own) for own in spent]


def draw(rows: Sequence[Row], first: int, path: str) -> None:
    """The ratios as a picture: against each of batch, size and parameters."""
    small = [row for row in rows if row["px"] == SIZE]
    panels = (
        ("batch", "images of a batch", small),
        ("px", "pixels a side", [row for row in rows if row["batch"] == first]),
        ("millions", "million parameters", [row for row in small if row["batch"] == first]),
    )
    alt.hconcat(*(panel(*one) for one in panels)).save(path, ppi=110)


def panel(by: str, title: str, rows: Sequence[Row]) -> alt.Chart:
    """Of the picture."""
    ticks = sorted({row[by] for row in rows}) if by != "millions" else [1, 2, 5, 10, 20]
    scale = alt.Scale(type="log", nice=False, padding=12)
    found: alt.Chart = (
        alt.Chart(alt.Data(values=rows), title=f"by {title}")
        .mark_line(point=True)
        .encode(
            x=alt.X(f"{by}:Q", scale=scale, title=title, axis=alt.Axis(values=ticks, grid=False)),
            y=alt.Y("ratio:Q", title="a step / a pass of training", scale=alt.Scale(zero=True)),
            color=alt.Color("network:N", title=None, legend=alt.Legend(labelLimit=0)),
        )
        .properties(width=230, height=220)
    )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [line.name for line in LINES]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 4, 8])
    parser.add_argument("--sizes", nargs="*", type=int, default=[32, 64, 112])
    parser.add_argument("--searches", action="store_true", help="whole searches, at 64 px")
    parser.add_argument("--chart", metavar="FILE", help="a picture of it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    points = [(SIZE, size) for size in options.batch]
    if options.searches:
        options.sizes = []
    points += [(px, options.batch[0]) for px in options.sizes if px != SIZE]
    print(
        "| network | parameters | px | batch | a step, ms | a training pass, ms | ratio | of all "
        "layers | the network alone |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for line in LINES:
        for px, size in points if line.name in options.only else ():
            if (line.training and (size, px) == (1, 32)) or (
                line.build in (vit, timm_vit) and px != SIZE
            ):
                continue  # a last map of one number an image; networks made for one size
            row = (searched if options.searches else measured)(line, px, size)
            rows.append(row)
            whole, bare = (f"{row[of]:.2f}" if of in row else "–" for of in ("whole", "bare"))
            print(
                f"| {line.name} | {row['millions']:.1f} M | {px} | {size} | {row['step']:.0f} | "
                f"{row['passed']:.0f} | {row['ratio']:.2f} | {whole} | {bare} |",
                flush=True,
            )
    if options.chart:
        draw(rows, options.batch[0], options.chart)


if __name__ == "__main__":
    main()
