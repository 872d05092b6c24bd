"""Subspace matching on the networks that face recognition deploys, at the size it uses.

    python benchmarks/deployed_networks.py                          # about 15 CPU minutes
    python benchmarks/deployed_networks.py --only mobilefacenet --targets 4 --seeds 0 1
    python benchmarks/deployed_networks.py --only iresnet18 --trained 60   # pre-trained, 60 steps
    python benchmarks/deployed_networks.py --only iresnet18 --targets 8 --seeds 0 1 2 \
        --results FILE                                              # goes on from the file
    python benchmarks/deployed_networks.py --only torchvision:resnet18 --training
    python benchmarks/deployed_networks.py --only --also timm:regnetx_002 torchvision:densenet121
    python benchmarks/deployed_networks.py --only --also torchvision:swin_t --size 112 --batch 4
    python benchmarks/deployed_networks.py --only timm:vit_base --lr 0.01 --steps 4   # SGD, 4 steps
    python benchmarks/deployed_networks.py --only timm:vit_base --lr 1e-4 --optimizer adam
    python benchmarks/deployed_networks.py --only --also timm:vit_small_patch16_dinov3 --grown
    python benchmarks/deployed_networks.py --only --also torchvision:resnet50 --training \
        --defense gaussian_noise std=1 of=norm

Color photos of p09 and p10 of OpenPeople, on whom nothing was tuned; batch norm in evaluation mode,
or as clients run it by default (`--training`); networks from `fedaudit list networks`, fresh, or
pre-trained on generated faces (`federation.pretraining`, kept in the cache). A head that starts at
zero, as torchvision's transformers have it, sends nothing back, and is drawn as it is after a first
step. With --grown, what begins next to nothing is drawn as large as training may make it: scales of
layers (LayerScale) from 0.05 to 0.5, class tokens and registers of deviation 0.5, biases of
relative places of 0.1; gains of zero (NF-ResNets) are 0.2. With --lr a client trains so many steps
on all photos, by SGD with momentum 0.9 or by Adam, and shares what changed. "First" is by SFace, of
ten people, and beside it the same of the originals.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any, get_args

import torch
from kept_rows import KeptRows, Row, add_results
from stock_clients import ATTACKED, add_defense, defense_of, delta_of, sent_under, update_of
from ten_people import Judge, batches
from torch import nn
from tuning import add_set, settings

import fedaudit
from fedaudit.core.observation import ModelSpec
from fedaudit.core.training import LocalTraining, Optimizer
from fedaudit.data.openpeople import openpeople
from fedaudit.federation.pretraining import pretrain
from fedaudit.models.batch_norm import running_statistics
from fedaudit.models.build_network import build, load, parameters_of
from fedaudit.models.class_head import find_class_head
from fedaudit.scoring.image_metrics import PSNR, SSIM
from fedaudit.scoring.pairing import pair


@dataclass(frozen=True)
class Line:
    """A network, its size and batch, and settings of the attack."""

    network: str
    size: int
    batch: int
    settings: Mapping[str, float]


LINES = (
    Line("mobilefacenet", 112, 1, {}),
    Line("vit_s", 112, 1, {}),
    Line("vit_s", 112, 2, {}),
    Line("vit_s", 112, 4, {}),
    Line("iresnet18", 112, 1, {}),
    Line("torchvision:resnet18", 64, 1, {}),
    Line("torchvision:resnet18", 112, 1, {}),
    Line("torchvision:mobilenet_v2", 64, 1, {}),
    Line("torchvision:resnet50", 224, 1, {}),
    Line("torchvision:vit_b_16", 224, 1, {}),
    Line("timm:vit_base_patch16_224", 224, 1, {}),
)


def wake_head(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Draw a head of zeros."""
    head = find_class_head(model, shape)
    if head is not None and not model.get_parameter(head.name).any():
        nn.init.normal_(model.get_parameter(head.name), std=0.02)


# As timm names them:
SCALES = (".gamma", ".gamma_1", ".gamma_2")
TOKENS = ("cls_token", "reg_token")
BIASES = ".relative_position_bias_table"
GAIN = "gain"


def grow(model: nn.Module, seed: int) -> None:
    """Draw what begins next to nothing as large as training may make it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(SCALES):
                parameter.uniform_(0.05, 0.5, generator=generator)
            elif name in TOKENS:
                parameter.normal_(std=0.5, generator=generator)
            elif name.endswith(BIASES):
                parameter.normal_(std=0.1, generator=generator)
            elif name.endswith(GAIN) and not parameter.any():
                parameter.fill_(0.2)


def network_of(line: Line, seed: int, options: argparse.Namespace) -> nn.Module:
    """Fresh or pre-trained, in the mode that is asked for."""
    spec = ModelSpec(line.network, {"classes": 10, "image_size": line.size})
    model = build(spec, seed=seed)
    if options.trained:
        state = {**parameters_of(model), **running_statistics(model)}
        trained = pretrain(spec, state, public="synthetic", steps=options.trained, seed=seed)
        load(model, trained)
    wake_head(model, (3, line.size, line.size))
    if options.grown:
        grow(model, seed)
    return model.train(options.training)


def loop_of(line: Line, options: argparse.Namespace) -> LocalTraining | None:
    """How the client trains; None for one gradient."""
    if options.lr is None:
        return None
    sgd = options.optimizer == "sgd"
    return LocalTraining(
        lr=options.lr,
        steps=options.steps,
        batch_size=line.batch,
        momentum=0.9 if sgd else 0.0,
        optimizer=options.optimizer,
        weight_decay=options.weight_decay,
        batch_norm="train" if options.training else "eval",
    )


def attacked(
    model: nn.Module,
    line: Line,
    rows: list[int],
    number: int,
    judge: Judge,
    local: LocalTraining | None,
    defense: Any = None,
) -> Row:
    """One update, and how near to its photos the attack comes."""
    images, labels = judge.faces.images[rows], torch.arange(line.batch)
    if local is None:
        shared = update_of(model, images, labels)
    else:
        shared, _ = delta_of(model, images, labels, local)
    shared = sent_under(defense, shared, line.batch, number)
    rebuilt = fedaudit.attack(
        model,
        shared,
        "subspace_matching",
        kind="delta" if local else "gradient",
        training=local,
        images=line.batch,
        image_shape=(3, line.size, line.size),
        settings=dict(line.settings),
        defense=defense,
        seed=number,
    )
    unknown = torch.full((line.batch,), -1)
    found = rebuilt.images[list(pair(images, unknown, rebuilt.images, unknown))]
    return {
        "SSIM": SSIM()(images, found).tolist(),
        "PSNR": PSNR()(images, found).tolist(),
        "first": sum(judge.first(found, rows)),
        "ceiling": sum(judge.first(images, rows)),
        "seconds": rebuilt.seconds,
        "left": rebuilt.objective,
    }


def measure(line: Line, judge: Judge, kept: KeptRows, options: argparse.Namespace) -> None:
    """Attack one line's updates, but for those whose rows are kept already; print its row."""
    key = asdict(line) | {
        "trained": options.trained,
        "training": options.training,
        **({"grown": True} if options.grown else {}),
        **({"defense": options.defense} if options.defense else {}),
        "people": list(options.people),
        "constants": [given for given in options.given if "." in given],
    }
    local, rows = loop_of(line, options), []
    if local is not None:
        key["local"] = asdict(local)
    for seed in options.seeds:
        chosen = list(batches(judge.faces, line.batch, options.targets, seed, options.people))
        done = {row["number"]: row for row in kept.of(key | {"seed": seed})}
        model = network_of(line, seed, options) if done.keys() < set(range(len(chosen))) else None
        for number, photos in enumerate(chosen):
            if number not in done:
                assert model is not None
                told = {"seed": seed, "number": number, "photos": photos}
                done[number] = (
                    key
                    | told
                    | attacked(
                        model, line, photos, number, judge, local, defense_of(options.defense)
                    )
                )
                kept.add(done[number])
            row = done[number]
            rows.append(row)
            print(
                f"{line.network}, seed {seed}, batch {number}: {mean(row['SSIM']):.3f}, "
                f"{mean(row['PSNR']):.1f} dB, {row['seconds']:.0f} CPU s",
                file=sys.stderr,
                flush=True,
            )
    state = f"{options.trained} steps" if options.trained else "fresh"
    state += ", training mode" if options.training else ""
    state += ", grown" if options.grown else ""
    state += f", {' '.join(options.defense)}" if options.defense else ""
    if local is not None:
        state += f", {local.steps} × {local.optimizer}, lr {local.lr:g}"
        state += f", decay {local.weight_decay:g}" if local.weight_decay else ""
    settings_told = ", ".join(f"{k} = {v}" for k, v in line.settings.items()) or "as it is"
    ssim = [one for row in rows for one in row["SSIM"]]
    psnr = [one for row in rows for one in row["PSNR"]]
    print(
        f"| {line.network}, {line.size} px, {state} | {line.batch} | {settings_told} | "
        f"{len(rows)} | {mean(ssim):.2f} ({min(ssim):.2f}) | {mean(psnr):.1f} | "
        f"{sum(row['first'] for row in rows)} of {sum(row['ceiling'] for row in rows)} | "
        f"{mean(row['seconds'] for row in rows):.0f} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[""], help="parts of networks' names")
    parser.add_argument("--also", nargs="*", default=[], help="further networks")
    parser.add_argument("--size", type=int, default=64, help="pixels a side, of further networks")
    parser.add_argument("--batch", type=int, default=1, help="photos, of further networks")
    parser.add_argument("--targets", type=int, default=1, help="batches a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trained", type=int, default=0, help="steps of pre-training")
    parser.add_argument("--grown", action="store_true", help="scales as training leaves them")
    parser.add_argument("--training", action="store_true", help="batch norm in training mode")
    parser.add_argument("--people", nargs=2, default=ATTACKED, help="who is attacked")
    parser.add_argument("--lr", type=float, help="the client trains, by steps of this size")
    parser.add_argument("--steps", type=int, default=1, help="of them")
    parser.add_argument("--optimizer", choices=get_args(Optimizer), default="sgd")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="of the optimizer")
    add_defense(parser)
    add_set(parser)
    add_results(parser)
    options = parser.parse_args()
    chosen = settings(options.given)
    torch.set_num_threads(1)
    print(f"photos of {' and '.join(options.people)}")
    print("| network | batch | settings | batches | SSIM (least) | PSNR | first of ten | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    judges: dict[int, Judge] = {}
    kept = KeptRows(options.results)
    lines = [line for line in LINES if any(part in line.network for part in options.only)]
    further = [Line(network, options.size, options.batch, {}) for network in options.also]
    for line in (*lines, *further):
        if line.size not in judges:
            judges[line.size] = Judge(openpeople(size=line.size))
        asked = replace(line, settings={**line.settings, **chosen})
        measure(asked, judges[line.size], kept, options)


if __name__ == "__main__":
    main()
