"""What every registered federated method must do."""

from collections.abc import Callable
from dataclasses import is_dataclass

import pytest
import torch

from fedaudit.federation.rounds import Simulation
from fedaudit.registry import create, describe, lookup, names
from fedaudit.types import LocalTraining, Update

METHODS = ("fedavg", "fedprox", "fedsgd")


def test_every_registered_method_has_a_row() -> None:
    assert names("methods") == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str, federate: Callable[..., Simulation]) -> None:
    kind = lookup("methods", method)
    assert is_dataclass(kind)
    assert describe("methods", method)
    assert "Shared:" in (kind.__doc__ or "")
    made = create("methods", method, {})
    assert made.share in ("gradient", "delta")

    training = LocalTraining(lr=0.1, steps=2, batch_size=2)
    assert isinstance(made.local(training), LocalTraining)
    simulation = federate(network="small_cnn", method=method)
    fresh = simulation.fresh()
    photos = simulation.split.train[simulation.split.clients[0][0]][:2]
    before = torch.get_rng_state()
    results = []
    for _ in range(2):
        noise = torch.Generator().manual_seed(3)
        (update,) = simulation.step(fresh, 0, photos, training, noise).shared
        assert isinstance(update, Update)
        assert update.kind == made.share
        results.append(made.combine(fresh.server, [update], training))
    assert torch.equal(torch.get_rng_state(), before)
    assert set(results[0]) == set(fresh.server)
    for name, value in results[0].items():
        assert value.shape == fresh.server[name].shape
        assert torch.equal(value, results[1][name])
