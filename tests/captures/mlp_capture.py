"""Captures of a small fully connected network, in which one step on noise is trained."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.captures.record.recording import Recording
from fedaudit.core.capture import Capture
from fedaudit.core.observation import ModelSpec
from fedaudit.core.shared import Update
from fedaudit.models.build_network import build

SHAPE = (3, 8, 8)


LR = 0.1


def photos(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *SHAPE, generator=generator)
    return images, torch.randint(5, (count,), generator=generator)


def trained(
    network: nn.Module, images: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights after one step, and the gradient; the network is left as it was."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.zero_grad()
    F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    gradient = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    torch.optim.SGD(network.parameters(), lr=LR).step()
    after = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(before)
    return after, gradient


def mlp() -> nn.Module:
    return build(ModelSpec("mlp", {"classes": 5, "image_size": 8, "hidden": 32}))


def record_mlp(folder: Path, augmentation: str | None = None) -> Recording:
    return fedaudit.recording(
        folder,
        model="mlp",
        arguments={"hidden": 32},
        classes=5,
        image_shape=SHAPE,
        augmentation=augmentation,
        lr=LR,
        local_steps=1,
        batch_size=1,
    )


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def update_of(capture: Capture) -> Update:
    (update,) = (s for s in capture.seen.shared if isinstance(s, Update))
    return update
