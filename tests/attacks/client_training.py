"""Clients that train a stock network as its owner wrote it: loops, photos, what they share."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.observation import LocalTraining

sys.path.insert(0, str(Path(__file__).parent))
from small_networks import SHAPE
from stock_networks import Network

LOOPS: Mapping[str, LocalTraining | None] = {
    "gradient": None,
    "epochs": LocalTraining(lr=0.02, steps=4, batch_size=2, momentum=0.9),
    "adam": LocalTraining(lr=1e-3, steps=2, batch_size=4, optimizer="adam"),
}
"""Local training by name; None shares one gradient."""

LABELS = {1: (5,), 4: (3, 3, 1, 7)}
"""Of batches of one and of four."""


def photos(count: int, seed: int = 0) -> Tensor:
    """Smooth images `[count, 3, 32, 32]` in [0, 1]."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, SHAPE[1:], mode="bilinear")


def train_client(
    model: nn.Module, network: Network, loop: LocalTraining | None, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """What a client shares that trains a network as its owner wrote it: trained parameters only."""
    criterion: Any = getattr(model, "criterion", F.cross_entropy)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = _optimizer(list(trained.values()), loop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for which in _batches(len(images), loop):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=network.mixed):
                scores = model(images[which])
            criterion(scores.float(), labels[which]).backward()
            if loop is None:
                return {n: p.grad.clone() for n, p in trained.items() if p.grad is not None}
            optimizer.step()
    return {n: p.detach() - before[n] for n, p in trained.items()}


def _optimizer(parameters: list[nn.Parameter], loop: LocalTraining | None) -> torch.optim.Optimizer:
    if loop is not None and loop.optimizer == "adam":
        return torch.optim.Adam(parameters, loop.lr)
    loop = loop or LocalTraining()
    return torch.optim.SGD(parameters, loop.lr, momentum=loop.momentum)


def _batches(count: int, loop: LocalTraining | None) -> Iterator[list[int]]:
    size = count if loop is None else min(loop.batch_size, count)
    for step in range(1 if loop is None else loop.steps):
        first = step * size % count
        yield list(range(first, first + size))
