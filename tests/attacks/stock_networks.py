"""Networks of every day, small: what attacks must run on, or say why not."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import Bottleneck as WideBlock

sys.path.insert(0, str(Path(__file__).parent))
from small_networks import (
    CLASSES,
    SHAPE,
    Dropped,
    Shared,
    Unused,
    adaface,
    convnext,
    frozen_backbone,
    iresnet,
    lora,
    mobile_face,
    residual,
    swin,
    vit,
    vit_lora,
)


@dataclass(frozen=True)
class Network:
    """How a client builds and runs a network.

    Attributes:
        make: Builds it; its parameters are drawn from torch's global generator.
        mode: In which batch norm trains.
        mixed: The client trains under autocast to bfloat16.
    """

    make: Callable[[], nn.Module]
    mode: Literal["train", "eval"] = "train"
    mixed: bool = False


NETWORKS: Mapping[str, Network] = {
    "resnet18": Network(lambda: residual(BasicBlock)),
    "resnet18_eval": Network(lambda: residual(BasicBlock), "eval"),
    "resnet50": Network(lambda: residual(WideBlock)),
    "resnet50_eval": Network(lambda: residual(WideBlock), "eval"),
    "iresnet_arcface": Network(iresnet),
    "mobile_face": Network(mobile_face),
    "adaface": Network(adaface),
    "mobilenet": Network(lambda: models.mobilenet_v3_small(num_classes=CLASSES, width_mult=0.5)),
    "convnext": Network(convnext),
    "vit": Network(vit),
    "swin": Network(swin),
    "frozen_backbone": Network(frozen_backbone, "eval"),
    "lora": Network(lora),
    "vit_lora": Network(vit_lora),
    "unused_layer": Network(Unused),
    "dropout_depth": Network(Dropped),
    "weight_sharing": Network(Shared),
    "mixed_precision": Network(Unused, mixed=True),
}
"""By name; those that torchvision has are its own code with fewer blocks."""

WITHOUT_NORM = frozenset(
    {
        "convnext",
        "vit",
        "swin",
        "lora",
        "vit_lora",
        "unused_layer",
        "dropout_depth",
        "weight_sharing",
        "mixed_precision",
    }
)
"""Networks without batch norm, whose batch may be one image in any mode."""


def build_seeded(network: Network, seed: int = 0) -> nn.Module:
    """The network in its mode, its parameters by `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network.make()
    return model.train(network.mode == "train")


def stock_network(*, name: str, classes: int, image_size: int) -> nn.Module:
    """A network of the table, for a spec that says what it is built for."""
    assert (classes, image_size) == (CLASSES, SHAPE[1])
    return NETWORKS[name].make()
