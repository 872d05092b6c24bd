"""Subspace matching on stock networks: how near, how fast, and is it the person?

    python benchmarks/subspace.py                                   # about 10 CPU minutes
    python benchmarks/subspace.py --only "ResNet-18 eval, trained" --batch 1 \
        --targets 8 --seeds 0 1 2 --results FILE
    python benchmarks/subspace.py --only "group-norm" --batch 1 --defense top_k pruned=0.99
    python benchmarks/subspace.py --only ResNet-18 --maps --batch 1 8    # closed forms, no search
    python benchmarks/subspace.py --only "two epochs" --misfits --batch 16   # how far steps drift

Color faces of OpenPeople at 64 px. Networks are torchvision's and timm's, as they are; trained ones
on eight people, attacked the photos of the two others: `PAIRS`, by seed, none of whom tuned
anything (settings: p01 and p02; the colors of faces: p03 … p08, so that in training mode p09 and
p10 are attacked whatever the seed). The attack is `fedaudit.attack(model, update,
"subspace_matching")` with the number and size of the images, and the defense in use, if any.
"First" is by SFace, a judge of every report: an image is first of ten where its embedding is
nearest to its person's mean over their other photos. With --results, each batch is a line of a
file, from which the command goes on.
"""

import argparse
from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from kept_rows import KeptRows, Row, add_results
from span_accuracy import chosen, maps, misfits
from stock_clients import (
    LOUD,
    PAIRS,
    SIZE,
    Line,
    add_defense,
    are_loud,
    defense_of,
    delta_of,
    network_of,
    sent_under,
    update_of,
)
from ten_people import Judge, batches
from torch import nn
from tuning import add_set, settings

import fedaudit
from fedaudit.data.openpeople import openpeople
from fedaudit.scoring.image_metrics import PSNR, SSIM
from fedaudit.scoring.pairing import pair
from fedaudit.stats import intervals

USUAL = ("ResNet-18 eval, fresh", "ResNet-18 eval, trained", "ResNet-18 train", "ViT")


def attacked(
    model: nn.Module,
    line: Line,
    rows: list[int],
    number: int,
    judge: Judge,
    asked: Row,
    defense: Any = None,
) -> Row:
    """One update, and how near to its photos the attack comes; of a zero one only that it is."""
    images, labels = judge.faces.images[rows], torch.arange(len(rows)) % 8
    local = line.local
    delta, seen = delta_of(model, images, labels, local) if local else (None, images[None])
    shared = delta or update_of(model, images, labels)
    shared = sent_under(defense, shared, len(rows), number)
    if not any(value.any() for value in shared.values()):
        return {"sent": False}
    rebuilt = fedaudit.attack(
        model,
        shared,
        "subspace_matching",
        kind="delta" if delta else "gradient",
        training=local,
        images=len(rows),
        image_shape=(3, SIZE, SIZE),
        settings=asked,
        defense=defense,
        seed=number,
    )
    unknown = torch.full((len(rows),), -1)
    orders = [list(pair(one, labels, rebuilt.images, unknown)) for one in seen]
    # Of two epochs' versions of a photo the nearer one counts.
    order = max(
        orders,
        key=lambda o: sum(float(SSIM()(one, rebuilt.images[o]).mean()) for one in seen),
    )
    found = rebuilt.images[order]
    each = torch.stack([SSIM()(one, found) for one in seen]).amax(0)
    known = judge.first(found, rows)
    # Behind batch norm in training mode a photo has no gradient of its own.
    loud = [True] * len(rows) if local or line.training else are_loud(model, images, labels)
    return {
        "sent": True,
        "loud": sum(loud),
        "SSIM of loud": [float(one) for one, is_loud in zip(each, loud, strict=True) if is_loud],
        "first of loud": sum(first for first, is_loud in zip(known, loud, strict=True) if is_loud),
        "SSIM": float(each.mean()),
        "PSNR": float(torch.stack([PSNR()(one, found) for one in seen]).amax(0).mean()),
        "first": sum(known),
        "ceiling": sum(judge.first(images, rows)),
        "labels": mean((rebuilt.labels[order] == labels).tolist()),
        "seconds": rebuilt.seconds,
        "left": rebuilt.objective,
    }


def measure(
    line: Line, size: int, judge: Judge, kept: KeptRows, options: argparse.Namespace
) -> list[Row]:
    """Attack one line's updates, but for those whose rows are kept already."""
    rows = []
    for seed in options.seeds:
        people = options.people or PAIRS[0 if line.training else seed % len(PAIRS)]
        key: Row = {"line": line.name, "batch": size, "seed": seed}
        key |= {"people": list(people), "given": list(options.given)}
        if options.defense:
            key["defense"] = options.defense
        done = {row["number"]: row for row in kept.of(key)}
        model = None
        for number, photos in enumerate(batches(judge.faces, size, options.targets, seed, people)):
            if number < options.skip:
                continue
            if number not in done:
                model = model or network_of(line, judge.faces, seed, people)
                asked, defense = options.settings, options.in_use
                row = attacked(model, line, photos, number, judge, asked, defense)
                done[number] = key | {"number": number} | row
                kept.add(done[number])
            rows.append(done[number])
    return rows


def told_of_loud(size: int, measured: Sequence[Row]) -> str:
    """What came back of photos that the update is of, where it is hardly of all; or nothing."""
    rows = [row for row in measured if row["sent"]]
    loud = sum(row.get("loud", size) for row in rows)
    ssim = [one for row in rows for one in row.get("SSIM of loud", ())]
    if loud == size * len(rows) or not ssim:
        return ""
    return (
        f"{size * len(rows) - loud} of {size * len(rows)} photos have less than {LOUD:g} of their "
        f"batch's largest gradient; the others: SSIM {mean(ssim):.2f} ({min(ssim):.2f}), "
        f"{sum(row['first of loud'] for row in rows)} of {loud} first of ten"
    )


def told(line: Line, size: int, measured: Sequence[Row]) -> str:
    """The row of the table, with Student's interval over batches."""
    rows = [row for row in measured if row["sent"]]
    count = str(len(rows))
    if len(rows) < len(measured):
        count += f", {len(measured) - len(rows)} sent zeros"
    if not rows:
        return f"| {line.name} | {size} | {count} | – | – | – | – | – | – | – |"
    each = {key: [row[key] for row in rows] for key in rows[0]}
    ssim = f"{mean(each['SSIM']):.2f} ({min(each['SSIM']):.2f})"
    if len(rows) > 1:
        bounds = intervals.mean(each["SSIM"], range(len(rows)), (-1, 1))
        ssim += f" | {bounds.low:.2f}–{bounds.high:.2f}"
    else:
        ssim += " | –"
    return (
        f"| {line.name} | {size} | {count} | {ssim} | {mean(each['PSNR']):.1f} | "
        f"{sum(each['first'])} of {sum(each['ceiling'])} of {size * len(rows)} | "
        f"{mean(each['labels']):.2f} | {mean(each['seconds']):.0f} | {mean(each['left']):.0e} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=USUAL, help="parts of the names of lines")
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--targets", type=int, default=2, help="batches a seed")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first batches")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    add_set(parser)
    parser.add_argument("--people", nargs=2, help="who is attacked; of `PAIRS` if not given")
    add_defense(parser)
    parser.add_argument("--maps", action="store_true", help="closed forms alone, no search")
    parser.add_argument("--misfits", action="store_true", help="of several steps; no search")
    add_results(parser)
    options = parser.parse_args(arguments)
    options.settings, options.in_use = settings(options.given), defense_of(options.defense)
    torch.set_num_threads(1)
    faces = openpeople(size=SIZE)
    if options.maps or options.misfits:
        (maps if options.maps else misfits)(faces, options)
        return
    judge = Judge(faces)
    print(
        "| network | batch | batches | SSIM (least) | interval | PSNR | first of ten, of the "
        "originals', of all | labels | CPU s | left |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    kept = KeptRows(options.results)
    for line in chosen(options):
        for size in options.batch:
            measured = measure(line, size, judge, kept, options)
            print(told(line, size, measured), flush=True)
            if note := told_of_loud(size, measured):
                print(note, flush=True)


if __name__ == "__main__":
    main()
