"""Clients that train stock networks on color faces, and what each shares: of `subspace.py`.

Networks are torchvision's and timm's, as they are, at 64 px; trained ones on all people of
OpenPeople but those who are attacked.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.training import LocalTraining
from fedaudit.data.face_set import FaceSet
from fedaudit.defenses.gradient_transforms import in_order
from fedaudit.federation.augmentation import augment
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "attacks"))
from ported_layers import ported

SIZE = 64
PAIRS = (("p09", "p10"), ("p07", "p08"), ("p05", "p06"))
ATTACKED = PAIRS[0]
EPOCHS = 8
LOUD = 1e-3
"""Least share of the largest gradient that a photo must have to be counted as sent."""


@dataclass(frozen=True)
class Line:
    """A network in a state and a mode; how the client trains, where not by one step.

    Trained ones are by steps of `lr`: with group norm those of 0.05 lead nowhere (2.16 of 2.08).
    """

    name: str
    build: Callable[[int], nn.Module]
    trained: bool
    training: bool
    local: LocalTraining | None = None
    lr: float = 0.05


def resnet(depth: int) -> Callable[[int], nn.Module]:
    """torchvision's, by the number of classes."""
    make: Callable[..., nn.Module] = getattr(torchvision.models, f"resnet{depth}")
    return lambda classes: make(num_classes=classes)


def vit(classes: int) -> nn.Module:
    """torchvision's, small; its head does not start at zero, where nothing would be sent back."""
    network = torchvision.models.VisionTransformer(SIZE, 16, 4, 4, 192, 384, num_classes=classes)
    nn.init.normal_(network.heads.get_submodule("head").weight, std=0.02)
    return network


def timm_vit(classes: int) -> nn.Module:
    """Timm's ViT-S; its head does not start at zero either."""
    network: nn.Module = timm.create_model(
        "vit_small_patch16_224", img_size=SIZE, num_classes=classes
    )
    nn.init.normal_(network.get_submodule("head").weight, std=0.02)
    return network


def ported_vit(classes: int) -> nn.Module:
    """Timm's ViT-S whose linear layers are all products."""
    return ported(timm_vit(classes))


def dropping(classes: int) -> nn.Module:
    """Timm's ResNet-18 with dropout before the head and stochastic depth, as recipes set them."""
    network: nn.Module = timm.create_model(
        "resnet18", num_classes=classes, drop_rate=0.2, drop_path_rate=0.1
    )
    return network


def of_group_norms(classes: int) -> nn.Module:
    """The house's ResNet-18, with group norm, as studies build it."""
    spec = ModelSpec("resnet18", {"classes": classes, "image_size": SIZE})
    return build(spec, seed=torch.initial_seed())


def grouped(classes: int) -> nn.Module:
    """ResNet-18 with group norm in place of batch norm, as much federated work has it."""
    network: nn.Module = torchvision.models.resnet18(
        num_classes=classes, norm_layer=partial(nn.GroupNorm, 32)
    )
    return network


EPOCHS_OF_8 = LocalTraining(lr=0.01, steps=4, batch_size=8, momentum=0.9)
LINES = (
    Line("ResNet-18 eval, fresh", resnet(18), trained=False, training=False),
    Line("ResNet-18 eval, trained", resnet(18), trained=True, training=False),
    Line("ResNet-18 train mode, trained", resnet(18), trained=True, training=True),
    Line(
        "ResNet-18 two steps, momentum",
        *(resnet(18), True, True),
        LocalTraining(lr=0.01, steps=2, batch_size=8, momentum=0.9),
    ),
    Line("ResNet-18 two epochs, batches of 8, momentum", resnet(18), True, True, EPOCHS_OF_8),
    Line(
        "ResNet-18 weight decay, two epochs, batches of 8, momentum",
        *(resnet(18), True, True),
        replace(EPOCHS_OF_8, weight_decay=5e-4),
    ),
    Line(
        "ResNet-18 Adam, two epochs, batches of 8",
        *(resnet(18), True, True),
        LocalTraining(lr=1e-3, steps=4, batch_size=8, optimizer="adam"),
    ),
    Line(
        "ResNet-18 Adam, one step",
        *(resnet(18), True, True),
        LocalTraining(lr=1e-3, batch_size=8, optimizer="adam"),
    ),
    Line(
        "ResNet-18 Adam, one step, evaluation mode",
        *(resnet(18), True, False),
        LocalTraining(lr=1e-3, batch_size=8, optimizer="adam", batch_norm="eval"),
    ),
    Line(
        "ResNet-18 evaluation mode, two epochs, batches of 8, momentum",
        *(resnet(18), True, False),
        replace(EPOCHS_OF_8, batch_norm="eval"),
    ),
    Line("ResNet-18 with dropout and stochastic depth, one step", dropping, True, True),
    Line(
        "ResNet-18 with dropout and stochastic depth, two epochs, batches of 8, momentum",
        *(dropping, True, True),
        EPOCHS_OF_8,
    ),
    Line(
        "ResNet-18 augmented, one step",
        *(resnet(18), True, True),
        LocalTraining(lr=0.01, batch_size=8, augmentation=("flip", "crop", "jitter")),
    ),
    Line(
        "ResNet-18 augmented, two epochs, batches of 8, momentum",
        *(resnet(18), True, True),
        replace(EPOCHS_OF_8, augmentation=("flip", "crop", "jitter")),
    ),
    Line("group-norm ResNet-18, fresh", of_group_norms, trained=False, training=False),
    Line("ResNet-18 with group norm, fresh", grouped, trained=False, training=False),
    Line("ResNet-18 with group norm, trained", grouped, trained=True, training=False, lr=0.01),
    Line(
        "ResNet-18 with group norm, two epochs, batches of 8, momentum",
        *(grouped, True, False),
        EPOCHS_OF_8,
        lr=0.01,
    ),
    Line("ResNet-50 eval, trained", resnet(50), trained=True, training=False),
    Line("ViT patch 16, fresh", vit, trained=False, training=False),
    Line("ViT-S, trained, one gradient", timm_vit, trained=True, training=False, lr=0.01),
    Line("ported transformer, trained, one gradient", ported_vit, True, training=False, lr=0.01),
    Line(
        "ported transformer, four steps, momentum, lr 0.01",
        *(ported_vit, True, False),
        replace(EPOCHS_OF_8, batch_norm="eval"),
        lr=0.01,
    ),
    Line(
        "ViT-S, four steps, momentum, lr 0.01",
        *(timm_vit, True, False),
        replace(EPOCHS_OF_8, batch_norm="eval"),
        lr=0.01,
    ),
    Line(
        "ViT-S, four steps, momentum, lr 0.0001",
        *(timm_vit, True, False),
        replace(EPOCHS_OF_8, lr=1e-4, batch_norm="eval"),
        lr=0.01,
    ),
    Line(
        "ViT-S, one step, lr 0.0001",
        *(timm_vit, True, False),
        LocalTraining(lr=1e-4, batch_size=8, batch_norm="eval"),
        lr=0.01,
    ),
    Line(
        "ViT-S, Adam, one step, lr 0.001",
        *(timm_vit, True, False),
        LocalTraining(lr=1e-3, batch_size=8, optimizer="adam", batch_norm="eval"),
        lr=0.01,
    ),
    Line(
        "ViT-S, Adam, one step, lr 0.0001",
        *(timm_vit, True, False),
        LocalTraining(lr=1e-4, batch_size=8, optimizer="adam", batch_norm="eval"),
        lr=0.01,
    ),
)


def train(
    model: nn.Module,
    faces: FaceSet,
    seed: int,
    attacked: Sequence[str] | None = None,
    lr: float = 0.05,
) -> None:
    """On everybody who is not attacked."""
    people = sorted({p for p in faces.people if p not in (attacked or ATTACKED)})
    rows = [i for i, p in enumerate(faces.people) if p in people]
    labels = torch.tensor([people.index(faces.people[i]) for i in rows])
    images, generator = faces.images[rows], torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(rows), generator=generator).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def update_of(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What one client sends after one step."""
    client = copy.deepcopy(model)
    named = {name: p for name, p in client.named_parameters() if p.requires_grad}
    loss = criterion_of(client)(client(images), labels)
    gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return dict(zip(named, gradients, strict=True))


def are_loud(model: nn.Module, images: Tensor, labels: Tensor) -> list[bool]:
    """Which photos have at least `LOUD` of the largest own gradient; the others sent next to none.

    A network in evaluation mode that is sure of a photo's label has nothing to learn of it.
    """
    each = [update_of(model, *one) for one in zip(images.split(1), labels.split(1), strict=True)]
    sizes = torch.stack([torch.stack([g.norm() for g in one.values()]).norm() for one in each])
    return (sizes >= LOUD * sizes.max()).tolist()


def delta_of(
    model: nn.Module, images: Tensor, labels: Tensor, local: LocalTraining
) -> tuple[dict[str, Tensor], Tensor]:
    """What one client sends after epochs of shuffled mini-batches, and what it saw of each photo.

    `[E, N, C, H, W]` in E epochs; the photos themselves where it does not change them.
    """
    client = copy.deepcopy(model)
    named = client.parameters()
    optimizer: torch.optim.Optimizer
    if local.by_adam:
        rule = torch.optim.AdamW if local.optimizer == "adamw" else torch.optim.Adam
        optimizer = rule(named, local.lr, weight_decay=local.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            named, local.lr, momentum=local.momentum, weight_decay=local.weight_decay
        )
    generator, left = torch.Generator().manual_seed(0), torch.empty(0, dtype=torch.long)
    seen: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(local.steps):
            if not len(left):
                left = torch.randperm(len(images), generator=generator)
                seen.append(augment(images, local.augmentation))
            now, left = left[: local.batch_size], left[local.batch_size :]
            optimizer.zero_grad()
            criterion_of(client)(client(seen[-1][now]), labels[now]).backward()
            optimizer.step()
    before = dict(model.named_parameters())
    delta = {name: (p - before[name]).detach() for name, p in client.named_parameters()}
    return delta, torch.stack(seen)


def add_defense(parser: argparse.ArgumentParser) -> None:
    """The option."""
    parser.add_argument("--defense", nargs="+", metavar="NAME [SETTING=VALUE …]", default=[],
                        help="in use, of the update alone, and known")  # fmt: skip


def defense_of(given: Sequence[str]) -> Any:
    """The defense that `--defense` names; None for none."""
    if not given:
        return None
    name, *settings = given
    parts = (one.partition("=") for one in settings)
    stated = {key: _number_or_word(text) for key, _, text in parts}
    return create("defenses", name, stated)


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def sent_under(
    defense: Any, shared: dict[str, Tensor], images: int, number: int
) -> dict[str, Tensor]:
    """What a client sends in place of the update of so many images; drawn by `number`."""
    if defense is None:
        return shared
    drawn = torch.Generator().manual_seed(number)
    batch = {name: value[None] for name, value in shared.items()}
    sent = in_order(defense.replay(images).mean, batch, drawn)
    return {name: value[0] for name, value in sent.items()}


def network_of(line: Line, faces: FaceSet, seed: int, attacked: Sequence[str] | None) -> nn.Module:
    """As clients have it."""
    torch.manual_seed(seed)
    model = line.build(8)
    if line.trained:
        train(model, faces, seed, attacked, line.lr)
    return model.train(line.training)
