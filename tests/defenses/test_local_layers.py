"""Layers that stay on the device: what leaves, what is kept, and what people then verify with."""

from collections.abc import Callable

import pytest
import torch

from fedaudit.core.capture import Capture
from fedaudit.core.errors import ConfigError
from fedaudit.core.shared import Update
from fedaudit.defenses.local_layers import LocalLayers
from fedaudit.defenses.private_projector import PrivateProjector
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.utility import measure

Federate = Callable[..., Simulation]


@pytest.mark.parametrize("private", [("head.",), ("body.",), ("embedding.", "head."), ("body.1.",)])
def test_kept_layers_never_leave(federate: Federate, private: tuple[str, ...]) -> None:
    simulation = federate(
        network="small_cnn",
        method="fedavg",
        defense="local_layers",
        settings={"private": private},
        local_steps=1,
    )
    fresh = simulation.fresh()
    state, _ = simulation.train(fresh, range(1, 3))
    everything = set(federate(network="small_cnn").fresh().server)
    local = {name for name in everything if name.startswith(private)}
    assert set(state.server) == set(fresh.server) == everything - local
    assert all(set(kept) == local for kept in state.kept.values())
    name = min(local)
    assert not torch.equal(state.kept[0][name], state.kept[1][name])


def test_a_local_head_has_the_clients_people_a_shared_one_everybodys(federate: Federate) -> None:
    clients = federate().split.clients
    for private, classes in ((("head.",), len(clients[0])), (("body.",), sum(map(len, clients)))):
        simulation = federate(defense="local_layers", settings={"private": private})
        assert simulation.spec(0).arguments["classes"] == classes


def test_utility_is_of_everybodys_own_network(federate: Federate) -> None:
    simulation = federate(
        network="small_cnn",
        method="fedavg",
        defense="local_layers",
        settings={"private": ("body.",)},
        batch_size=32,
    )
    state, seconds = simulation.train(simulation.fresh(), range(1, 2))
    utility = measure(simulation, state, rounds=1, seconds=seconds)
    assert utility is not None
    shared = sum(v.numel() * v.element_size() for v in state.server.values())
    assert utility.bytes_per_client_round == 2 * shared


def test_the_same_prefixes_are_the_private_projector(intercept: Callable[..., Capture]) -> None:
    private = ("embedding.", "head.")
    ours, theirs = (
        intercept(network="small_cnn", defense=name, settings={"private": private}).seen.update
        for name in ("local_layers", "private_projector")
    )
    assert isinstance(ours, Update)
    assert isinstance(theirs, Update)
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[n], theirs.tensors[n]) for n in ours.tensors)


def test_what_would_keep_nothing_is_refused(intercept: Callable[..., Capture]) -> None:
    with pytest.raises(ConfigError, match=r"no parameter of the network begins with 'heda\.'"):
        intercept(network="small_cnn", defense="local_layers", settings={"private": ("heda.",)})
    for kind in (LocalLayers, PrivateProjector):
        for private in ((), ("",)):
            with pytest.raises(ValueError, match="at least one parameter prefix"):
                kind(private=private)
