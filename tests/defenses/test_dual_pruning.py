"""Dual pruning: which entries, how many, and what is left out comes later."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.shared import ClusterCenters, Shared, Update
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build

FEEDBACK = [
    ("dual_pruning", {"largest": 0.1, "smallest": 0.5}),
    ("top_k", {"pruned": 0.8, "error_feedback": True}),
]


def made(**settings: float) -> Any:
    (transform,) = create("defenses", "dual_pruning", settings).replay(1).mean
    return lambda value: transform({"w": value}, torch.Generator())["w"]


@pytest.mark.parametrize(("largest", "smallest"), [(0.1, 0.6), (0.0, 0.9), (0.25, 0.0), (0.0, 0.0)])
def test_neither_the_largest_nor_the_smallest_entries_are_sent(
    largest: float, smallest: float
) -> None:
    value = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
    sent = made(largest=largest, smallest=smallest)(value)
    for whole, kept in zip(value.flatten(1).tolist(), sent.flatten(1).tolist(), strict=True):
        order = sorted(whole, key=abs)
        middle = order[round(smallest * 40) : 40 - round(largest * 40)]
        assert kept == [number if number in middle else 0.0 for number in whole]


@pytest.mark.parametrize("name", ["dual_pruning", "random_pruning", "top_k"])
def test_bytes_of_numbers_and_their_places(name: str) -> None:
    defense = create("defenses", name, {})
    assert defense.encoded_bytes({"a": torch.eye(10), "b": torch.ones(2)}) == 8 * 12
    assert defense.encoded_bytes({"a": torch.ones(5)}) == 4 * 5


def test_equal_magnitudes_and_single_numbers_are_counted_too() -> None:
    assert int((made(largest=0.1, smallest=0.6)(torch.ones(1, 10)) != 0).sum()) == 3
    assert made(largest=0.4, smallest=0.5)(torch.tensor([[2.0]])).tolist() == [[2.0]]


def steps(updates: list[Tensor]) -> tuple[ClientStep, list[ClientTask]]:
    """A client whose updates are given, and the tasks that it has been asked to do."""
    asked: list[ClientTask] = []

    def step(task: ClientTask) -> ClientReturn:
        asked.append(task)
        shared: tuple[Shared, ...] = (
            ClusterCenters(torch.eye(2), 1.0),
            Update("gradient", {"w": updates[len(asked) - 1]}, 2),
        )
        return ClientReturn(shared)

    return step, asked


def task() -> ClientTask:
    nothing = torch.zeros(0)
    training = LocalTraining()
    generator = torch.Generator()
    return ClientTask(ModelSpec("lenet"), {}, {}, nothing, nothing, training, "gradient", generator)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(("name", "settings"), FEEDBACK)
def test_what_is_left_out_is_sent_later(name: str, settings: dict[str, Any], twice: bool) -> None:
    updates = list(torch.randn(4, 20, generator=torch.Generator().manual_seed(0)))
    step, asked = steps(updates)
    defense = create("defenses", name, settings)
    guarded = defense(defense(step)) if twice else defense(step)
    todo, total = task(), torch.zeros(20)
    for number in range(4):
        returned = guarded(todo)
        centers, sent = returned.shared
        assert isinstance(centers, ClusterCenters)
        assert isinstance(sent, Update)
        assert sent.examples == 2
        assert not asked[number].memory  # the client itself knows nothing of it
        total = total + sent.tensors["w"]
        left = torch.stack(list(returned.memory.values())).sum(0)
        assert len(returned.memory) == 1 + twice
        torch.testing.assert_close(total + left, torch.stack(updates[: number + 1]).sum(0))
        assert bool((left != 0).any())
        todo = replace(todo, memory=returned.memory)


@pytest.mark.parametrize(("name", "settings"), FEEDBACK)
def test_a_federation_carries_each_clients_memory_from_round_to_round(
    federate: Callable[..., Simulation], name: str, settings: dict[str, Any]
) -> None:
    simulation = federate(network="lenet", defense=name, settings=settings, batch_size=4)
    one, _ = simulation.train(simulation.fresh(), range(1, 2))
    assert set(one.memory) == {0, 1}
    assert all(not kept for kept in one.kept.values())
    assert any(not torch.equal(v, one.memory[1][n]) for n, v in one.memory[0].items())
    two, _ = simulation.train(one, range(2, 3))
    forgot, _ = simulation.train(replace(one, memory={}), range(2, 3))
    lr = simulation.federation.training.lr
    for parameter in one.server:
        # The clients have equally many photos, and the server steps along their mean.
        first = torch.stack([one.memory[c][f"0/{parameter}"] for c in (0, 1)])
        second = torch.stack([two.memory[c][f"0/{parameter}"] for c in (0, 1)])
        bare = torch.stack([forgot.memory[c][f"0/{parameter}"] for c in (0, 1)])
        recalled = forgot.server[parameter] - lr * (first + bare - second).mean(0)
        torch.testing.assert_close(two.server[parameter], recalled, atol=1e-5, rtol=1e-4)
    build(simulation.spec(0), {**two.server, **two.kept[0]})


def test_without_error_feedback_nothing_is_remembered(federate: Callable[..., Simulation]) -> None:
    settings = {"error_feedback": False}
    simulation = federate(network="lenet", defense="dual_pruning", settings=settings)
    state, _ = simulation.train(simulation.fresh(), range(1, 2))
    assert all(not memory for memory in state.memory.values())


@pytest.mark.parametrize("settings", [{"largest": -0.1}, {"largest": 0.5, "smallest": 0.5}])
def test_shares_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=str(settings["largest"])):
        create("defenses", "dual_pruning", settings)
