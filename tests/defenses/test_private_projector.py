"""The private projector: what is private never leaves, and comes back to its owner."""

from collections.abc import Callable

import pytest
import torch

from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining
from fedaudit.defenses.private_projector import PrivateProjector
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build, parameters_of

PRIVATE = ("embedding.", "head.")


@pytest.fixture(scope="module")
def simulation(federate: Callable[..., Simulation]) -> Simulation:
    settings = {"local_steps": 1, "batch_size": 8, "clients": 2}
    return federate(network="small_cnn", defense="private_projector", method="fedavg", **settings)


@pytest.fixture(scope="module")
def after_one(simulation: Simulation) -> State:
    return simulation.train(simulation.fresh(), range(1, 2))[0]


def test_only_the_public_module_is_seen(
    simulation: Simulation, intercept: Callable[..., Capture]
) -> None:
    seen = intercept(simulation=simulation).seen
    assert seen.update is not None
    public = {n for n in parameters_of(build(seen.model)) if n.startswith("body.")}
    assert set(seen.update.tensors) == set(seen.before) == public
    assert seen.defense is not None
    assert seen.defense[0].withheld == PRIVATE


def test_what_is_private_stays_with_each_client(simulation: Simulation, after_one: State) -> None:
    assert not any(name.startswith(PRIVATE) for name in after_one.server)
    one, two = after_one.kept[0], after_one.kept[1]
    assert set(one) == {"embedding.weight", "head.weight", "head.bias"}
    assert not torch.equal(one["embedding.weight"], two["embedding.weight"])


def test_the_projector_goes_on_from_where_it_was(simulation: Simulation, after_one: State) -> None:
    """With learning rate 0 a round returns exactly what the device kept."""
    still = LocalTraining(lr=0.0)
    returned = simulation.step(after_one, 1, _photos(simulation, 1), still, _noise())
    assert set(returned.kept) == set(after_one.kept[1])
    for name, value in returned.kept.items():
        assert torch.equal(value, after_one.kept[1][name])
    moving = LocalTraining(lr=0.1)
    returned = simulation.step(after_one, 1, _photos(simulation, 1), moving, _noise())
    assert not torch.equal(returned.kept["embedding.weight"], after_one.kept[1]["embedding.weight"])


def test_fresh_projectors_differ_between_clients(simulation: Simulation) -> None:
    fresh, still = simulation.fresh(), LocalTraining(lr=0.0)
    kept = [
        simulation.step(fresh, c, _photos(simulation, c), still, _noise(c)).kept for c in (0, 1)
    ]
    assert not torch.equal(kept[0]["embedding.weight"], kept[1]["embedding.weight"])


def test_nothing_private_is_no_defense() -> None:
    with pytest.raises(ValueError, match=r"such as 'head\.'"):
        PrivateProjector(private=())


def test_other_parts_can_be_private(intercept: Callable[..., Capture]) -> None:
    seen = intercept(defense="private_projector", settings={"private": ("head.",)}).seen
    assert seen.update is not None
    assert "embedding.weight" in seen.update.tensors
    assert not any(name.startswith("head.") for name in seen.update.tensors)


def _photos(simulation: Simulation, client: int) -> tuple[int, ...]:
    person = simulation.split.clients[client][0]
    return simulation.split.train[person][:1]


def _noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
