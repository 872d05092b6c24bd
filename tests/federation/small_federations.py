"""Federations of small networks by any method, for the tests of the methods."""

from collections.abc import Callable
from typing import Any

import torch

from fedaudit.federation.simulation import Simulation

Federate = Callable[..., Simulation]


def federation(federate: Federate, method: Any, **options: Any) -> Simulation:
    settings: dict[str, Any] = {"network": "small_cnn", "local_steps": 2, "batch_size": 4}
    return Simulation(**{**vars(federate(**{**settings, **options})), "method": method})


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
