"""What a study's image size costs: seconds and memory of one pass of each scenario's network."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fedaudit.core.errors import FedauditError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.scenario import Scenario, Study
from fedaudit.models.zoo import build

CLASSES = 10


@dataclass(frozen=True)
class PassCost:
    """One forward and backward pass of the audited batch, on one thread of this machine.

    Attributes:
        scenario: Its name.
        images: In the batch.
        seconds: Of the second pass; the first also sets things up.
        megabytes: What the pass keeps for the way back, and the network's weights and gradients.
    """

    scenario: str
    images: int
    seconds: float
    megabytes: float


def pass_costs(study: Study) -> Iterator[PassCost]:
    """Of each scenario of a simulated study whose network can be built here."""
    for scenario in study.scenarios if study.trains else ():
        try:
            yield _measure(scenario, study.size)
        except (FedauditError, RuntimeError):
            continue  # what is wrong with the network is said where the study is checked


def _measure(scenario: Scenario, size: int) -> PassCost:
    settings = {**scenario.network.settings, "classes": CLASSES, "image_size": size}
    network = build(ModelSpec(scenario.network.name, settings)).eval()
    images = torch.rand(
        scenario.batch_size, 3, size, size, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.zeros(scenario.batch_size, dtype=torch.long)
    parameters = [p for p in network.parameters() if p.requires_grad]
    known = {p.data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def count(value: Tensor) -> Tensor:
        if value.data_ptr() not in known:
            kept[value.data_ptr()] = value.nelement() * value.element_size()
        return value

    seconds = 0.0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(2):
            started = time.process_time()
            with saved_tensors_hooks(count, lambda value: value):
                loss = F.cross_entropy(network(images), labels)
            torch.autograd.grad(loss, parameters, allow_unused=True)
            seconds = time.process_time() - started
    finally:
        torch.set_num_threads(threads)
    weights = sum(2 * p.nelement() * p.element_size() for p in parameters)
    return PassCost(scenario.name, len(images), seconds, (sum(kept.values()) + weights) / 1e6)
