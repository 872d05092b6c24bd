"""What a study's image size costs: of one pass of each scenario's network, and of its trainings."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fedaudit.core.errors import FedauditError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.models.build_network import build
from fedaudit.study.jobs import TrainJob

CLASSES = 10


@dataclass(frozen=True)
class PassCost:
    """One forward and backward pass of the audited batch, on one thread of this machine.

    Attributes:
        scenario: Its name.
        network: That the pass goes through.
        images: In the batch.
        seconds: Of the second pass; the first also sets things up.
        megabytes: What the pass keeps for the way back, and the network's weights and gradients.
    """

    scenario: str
    network: Choice
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


def training_seconds(jobs: Iterable[TrainJob], costs: Iterable[PassCost]) -> float | None:
    """Seconds of a core that models take to train, without what their defenses add.

    Every client passes a mini-batch in each local step of each round. None where a pass of one of
    the networks was not measured.
    """
    total, known = 0.0, tuple(costs)
    for job in jobs:
        cost = next((one for one in known if one.network == job.network), None)
        if cost is None:
            return None
        federation, training = job.federation, job.federation.training
        photos = job.rounds * federation.clients * training.steps * training.batch_size
        total += photos * cost.seconds / cost.images
    return total


def _measure(scenario: Scenario, size: int) -> PassCost:
    settings = {**scenario.network.settings, "classes": CLASSES, "image_size": size}
    network = build(ModelSpec(scenario.network.name, settings)).eval()
    images = torch.rand(
        scenario.batch_size, 3, size, size, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.zeros(scenario.batch_size, dtype=torch.long)
    parameters = [p for p in network.parameters() if p.requires_grad]
    ids = {p.data_ptr() for p in parameters}
    loads: dict[int, int] = {}

    def count(value: Tensor) -> Tensor:
        if value.data_ptr() not in ids:
            loads[value.data_ptr()] = value.nelement() * value.element_size()
        return value

    seconds = 0.0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(2):
            start = time.process_time()
            with saved_tensors_hooks(count, lambda value: value):
                loss = F.cross_entropy(network(images), labels)
            torch.autograd.grad(loss, parameters, allow_unused=True)
            seconds = time.process_time() - start
    finally:
        torch.set_num_threads(threads)
    weights = sum(2 * p.nelement() * p.element_size() for p in parameters)
    bare = Choice(scenario.network.name, scenario.network.settings)
    return PassCost(
        scenario.name, bare, len(images), seconds, (sum(loads.values()) + weights) / 1e6
    )
