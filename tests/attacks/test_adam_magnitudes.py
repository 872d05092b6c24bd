"""The numbers of a gradient that one step of Adam leaves whole."""

from typing import Literal

import pytest
import torch
from torch import nn

from fedaudit.attacks.evidence.adam_magnitudes import read_magnitudes
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.core.training import LocalTraining

ADAM = LocalTraining(lr=1e-3, optimizer="adam")
Tensors = dict[str, torch.Tensor]


def a_step(
    *, weight_decay: float = 0.0, steps: int = 1, decoupled: bool = False
) -> tuple[Tensors, Tensors, Tensors]:
    """What was broadcast, what a client added, and the gradient of its first step."""
    torch.manual_seed(0)
    network = nn.Linear(200, 100)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    images, upstream = torch.rand(3, 200), 1e-2 * torch.randn(3, 100)
    rule = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = rule(network.parameters(), ADAM.lr, weight_decay=weight_decay)
    gradient: Tensors = {}
    for _ in range(steps):
        optimizer.zero_grad()
        (network(images) * upstream).sum().backward()
        named = network.named_parameters()
        gradient = gradient or {n: p.grad.clone() for n, p in named if p.grad is not None}
        optimizer.step()
    delta = {n: p.detach() - before[n] for n, p in network.named_parameters()}
    return before, delta, gradient


def misses(entries: KnownEntries, gradient: torch.Tensor) -> torch.Tensor:
    """By how many standard errors known numbers are off."""
    off = (entries.numbers - gradient.double()).abs()
    return (off / entries.errors)[entries.known]


@pytest.mark.parametrize(
    ("optimizer", "weight_decay"), [("adam", 0.0), ("adam", 5e-4), ("adamw", 0.05)]
)
def test_small_numbers_are_known_to_what_is_claimed(
    optimizer: Literal["adam", "adamw"], weight_decay: float
) -> None:
    decoupled = optimizer == "adamw"
    before, delta, gradient = a_step(weight_decay=weight_decay, decoupled=decoupled)
    training = LocalTraining(lr=1e-3, optimizer=optimizer, weight_decay=weight_decay)
    known = read_magnitudes(delta, before, training)
    for name, entries in known.items():
        assert 0.1 < float(entries.known.double().mean()) < 0.9, name
        smaller = gradient[name].abs() < gradient[name].abs().median()
        assert entries.known[smaller].double().mean() > entries.known[~smaller].double().mean()
    weight = known["weight"]
    # With a penalty the sum is known to that, and the images' part less exactly.
    if decoupled or not weight_decay:
        assert float(misses(weight, gradient["weight"]).median()) < 1.5
        assert float(misses(weight, gradient["weight"]).quantile(0.99)) < 5
    alike = torch.corrcoef(
        torch.stack([weight.numbers[weight.known], gradient["weight"].double()[weight.known]])
    )[0, 1]
    assert float(alike) > 0.97


def test_parameters_that_were_not_decayed_are_read_as_well() -> None:
    before, delta, gradient = a_step()
    training = LocalTraining(lr=1e-3, optimizer="adamw", weight_decay=0.05)
    known = read_magnitudes(delta, before, training)
    assert set(known) == {"weight", "bias"}
    for name, entries in known.items():
        assert 0.1 < float(entries.known.double().mean()) < 0.9, name
        assert float(misses(entries, gradient[name]).median()) < 1.5


def test_zeros_are_known() -> None:
    before, delta, _ = a_step()
    delta["weight"][3] = 0
    entries = read_magnitudes(delta, before, ADAM)["weight"]
    assert bool(entries.known[3].all())
    assert not bool(entries.numbers[3].any())


@pytest.mark.parametrize("case", ["two steps", "SGD", "half", "scaled", "noise"])
def test_nothing_is_read_off_other_updates(case: str) -> None:
    before, delta, _ = a_step(steps=2 if case == "two steps" else 1)
    training = ADAM
    if case == "two steps":
        training = LocalTraining(lr=1e-3, optimizer="adam", steps=2)
    if case == "SGD":
        training = LocalTraining(lr=1e-3)
    if case == "half":
        delta = {name: change.half().float() for name, change in delta.items()}
    if case == "scaled":
        delta = {name: 1.01 * change for name, change in delta.items()}
    if case == "noise":
        torch.manual_seed(1)
        delta = {name: change + 1e-5 * torch.randn_like(change) for name, change in delta.items()}
    assert read_magnitudes(delta, before, training) == {}
