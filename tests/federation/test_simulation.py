"""The simulated federation: what the server holds, what clients keep, that it learns."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from fedaudit.core.observation import LocalTraining
from fedaudit.federation import utility
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.utility import measure, step_cost
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import criterion_of

Federate = Callable[..., Simulation]


@pytest.fixture(autouse=True)
def costs_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about the seconds of a client's round, which are a median of five."""
    monkeypatch.setattr(utility, "step_cost", partial(step_cost, repeats=1))


def test_a_state_survives_being_flattened() -> None:
    state = State(
        {"a.weight": torch.ones(2), "b": torch.zeros(1)},
        {
            0: {"head.weight": torch.eye(2)},
            12: {"head.weight": torch.ones(1, 2), "x/y": torch.ones(1)},
        },
        {3: {"inner/0/b": torch.ones(3)}},
    )
    flat = state.flat()
    assert all(isinstance(value, torch.Tensor) for value in flat.values())
    back = State.from_flat(flat)
    assert back.server == state.server
    assert back.kept == state.kept
    assert back.memory == state.memory
    assert State.from_flat(State({"w": torch.ones(1)}).flat()).kept == {}


def test_a_shared_head_has_everybody_a_private_one_its_own(federate: Federate) -> None:
    shared, private = federate(), federate(defense="dplc")
    everybody = shared.split.people
    assert shared.labels_of(0) == shared.labels_of(1) == everybody
    assert shared.spec(0).arguments["classes"] == len(everybody) == 30
    for client in (0, 1):
        assert private.labels_of(client) == private.split.clients[client]
        assert private.spec(client).arguments["classes"] == 15
    assert "head.weight" in shared.fresh().server
    assert not any(name.startswith("head.") for name in private.fresh().server)


def test_network_arguments_and_image_size_are_passed_on(federate: Federate) -> None:
    simulation = federate(arguments={"head": "arcface", "dim": 16})
    assert simulation.spec(0).arguments == {
        "image_size": 32,
        "head": "arcface",
        "dim": 16,
        "classes": 30,
    }
    assert simulation.fresh().server["head.weight"].shape == (30, 16)


@pytest.mark.parametrize("method", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("defense", ["none", "dpsgd", "dplc", "private_projector"])
def test_rounds_are_deterministic_and_can_be_split(
    federate: Federate, method: str, defense: str
) -> None:
    """Two rounds at once, or one by one from a saved state, give the same bits."""
    options: dict[str, Any] = {"local_steps": 2, "batch_size": 8}

    def simulation(seed: int = 0) -> Simulation:
        return federate(network="small_cnn", method=method, defense=defense, seed=seed, **options)

    together, _ = simulation().train(simulation().fresh(), range(1, 3))
    first, _ = simulation().train(simulation().fresh(), range(1, 2))
    apart, _ = simulation().train(State.from_flat(first.flat()), range(2, 3))
    one, two = together.flat(), apart.flat()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = simulation(seed=1)
    elsewhere = other.train(other.fresh(), range(1, 3))[0].flat()
    assert not any(torch.equal(one[name], elsewhere[name]) for name in one if "weight" in name)


def test_progress_counts_the_rounds(federate: Federate) -> None:
    seen = []
    simulation = federate(network="small_cnn", local_steps=1, batch_size=2)
    simulation.train(simulation.fresh(), range(3, 5), lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.slow  # a long search
def test_training_lowers_the_loss_and_helps_people_it_never_saw(federate: Federate) -> None:
    simulation = federate(
        method="fedavg", local_steps=8, batch_size=16, lr=0.05, momentum=0.9, clients=2
    )
    fresh = simulation.fresh()
    trained, seconds = simulation.train(fresh, range(1, 7))
    assert seconds > 0
    photos = [i for person in simulation.split.people for i in simulation.split.train[person]]
    names = simulation.labels_of(0)
    labels = torch.tensor([names.index(simulation.faces.people[i]) for i in photos])

    def loss(state: State) -> float:
        model = build(simulation.spec(0), state.server)
        with torch.no_grad():
            return float(criterion_of(model)(model(simulation.faces.images[photos]), labels))

    assert loss(trained) < 0.8 * loss(fresh)
    before = measure(simulation, fresh, rounds=0, seconds=0)
    after = measure(simulation, trained, rounds=6, seconds=seconds)
    assert before is not None
    assert after is not None
    assert after.auc > before.auc + 0.02
    assert after.untrained == before.accuracy
    assert after.pairs == 100 * 99 / 2  # ten people held out, all ten photos of each
    size = sum(value.numel() for value in parameters_of(build(simulation.spec(0))).values())
    assert after.bytes_per_client_round == 2 * 4 * size


def test_without_held_out_people_there_is_no_utility(federate: Federate) -> None:
    simulation = federate(held_out=0)
    assert measure(simulation, simulation.fresh(), rounds=0, seconds=0.0) is None


def test_private_projectors_are_measured_one_by_one(federate: Federate) -> None:
    simulation = federate(
        network="small_cnn", defense="private_projector", local_steps=1, batch_size=4
    )
    state, seconds = simulation.train(simulation.fresh(), range(1, 2))
    utility = measure(simulation, state, rounds=1, seconds=seconds)
    assert utility is not None
    alone = [
        measure(simulation, State(state.server, {k: kept}), rounds=1, seconds=seconds)
        for k, kept in state.kept.items()
    ]
    aucs = [one.auc for one in alone if one is not None]
    assert len(set(aucs)) == 2
    assert utility.auc == pytest.approx(sum(aucs) / 2)
    assert utility.bytes_per_client_round == 2 * 4 * sum(v.numel() for v in state.server.values())


def test_labels_follow_the_head(federate: Federate) -> None:
    """The class of a photo is its person's row in the head that the client trains."""
    simulation = federate(network="small_cnn", arguments={"head": "linear"})
    person = simulation.split.clients[1][2]
    returned = simulation.step(
        simulation.fresh(),
        1,
        simulation.split.train[person][:1],
        LocalTraining(),
        torch.Generator(),
    )
    update: Any = returned.shared[0]
    row = simulation.split.people.index(person)
    assert int((update.tensors["head.bias"] < 0).nonzero()) == row
