"""Recordings that keep updates in 16 bits: what they change, and what they must leave as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fedaudit
from fedaudit.captures.audit.audit_notes import description
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.half_precision import ROUNDING, from_half, to_half
from fedaudit.captures.format.identical_messages import identical_groups
from fedaudit.captures.format.message_tensors import shared_of
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.captures.inspect.inspection import inspect
from fedaudit.core.shared import Buffers, Update

State = dict[str, torch.Tensor]


def sent() -> State:
    """A network with batch norm, whose counter a server has averaged."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 40, 5), nn.BatchNorm2d(40), nn.Flatten(), nn.Linear(40, 9))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state | {"1.num_batches_tracked": torch.tensor(2.5)}


def trained(before: State, seed: int, size: float = 1e-4) -> State:
    """Weights after a round: small changes of very different sizes, and zeros."""
    random = torch.Generator().manual_seed(seed)
    after = {}
    for name, value in before.items():
        change = size * torch.randn(value.shape, generator=random) ** 5
        change[torch.rand(value.shape, generator=random) < 0.2] = 0
        after[name] = value + change.abs() if name.endswith("var") else value + change
    return after | {"1.num_batches_tracked": torch.tensor(5)}


def record(folder: Path, kind: Any = "weights", **facts: Any) -> tuple[State, StoredCapture]:
    """Two clients' round; returns what the server sent."""
    before = sent()
    tape = fedaudit.recording(folder, **facts)
    tape.broadcast(1, before)
    for client in (1, 2):
        after = trained(before, client)
        if kind != "weights":
            after = {name: after[name].double() - before[name].double() for name in after}
        tape.update(1, client, after, kind=kind, examples=4)
    return before, StoredCapture(folder)


def meaning(capture: StoredCapture, one: StoredMessage) -> tuple[Update, Buffers]:
    """What attacks are handed."""
    update, buffers = shared_of(one.message, one.tensors(), capture.broadcast(1))
    assert isinstance(update, Update)
    assert isinstance(buffers, Buffers)
    return update, buffers


@pytest.mark.parametrize("kind", ["weights", "delta"])
def test_a_rounded_update_means_the_same_but_for_its_rounding(tmp_path: Path, kind: str) -> None:
    _, plain = record(tmp_path / "plain", kind)
    _, half = record(tmp_path / "half", kind, precision="half")
    for one, other in zip(plain.messages(1), half.messages(1), strict=True):
        exact, rounded = meaning(plain, one), meaning(half, other)
        assert exact[0].kind == rounded[0].kind
        assert other.message.version == 2
        for name, value in exact[0].tensors.items():
            near = rounded[0].tensors[name]
            room = 1.01 * ROUNDING * value.abs() + 2**-40 * value.abs().max()
            assert ((near - value).abs() <= room).all(), name
            assert (near[value == 0] == 0).all()
            assert other.header.entries[name].dtype == torch.float16
        for name, value in exact[1].tensors.items():
            assert torch.equal(rounded[1].tensors[name], value), name
        assert other.header.size < 0.75 * one.header.size
    look, usual = inspect(half, verify=True), inspect(plain, verify=True)
    assert not half.problems
    assert [p.name for p in look.protections] == [p.name for p in usual.protections]
    assert look.anomalies == usual.anomalies
    assert "rounded each number" in description((), half.facts, {}, None)
    assert "rounded" not in description((), plain.facts, {}, None)


def test_what_inspection_must_see_is_kept_as_it_was_sent(tmp_path: Path) -> None:
    before = sent()
    tape = fedaudit.recording(tmp_path / "c", precision="half")
    tape.update(1, "before there is a broadcast", trained(before, 1), kind="weights")
    tape.broadcast(1, before)
    masked = {n: (1e6 * v).round().to(torch.int32) for n, v in trained(before, 1).items()}
    tape.update(1, "masked", masked, kind="weights")
    tape.update(
        1, "broken", trained(before, 1) | {"3.bias": torch.full((9,), torch.nan)}, kind="weights"
    )
    tape.update(1, "another", trained(before, 1) | {"more": torch.ones(3)}, kind="weights")
    tape.update(1, "sum", trained(before, 1), kind="weights", aggregate=True)
    tape.update(1, "bf16", {n: v.bfloat16() for n, v in before.items()}, kind="delta")
    capture = StoredCapture(tmp_path / "c")
    for one in capture.messages(1):
        assert (one.message.version, one.message.exponents) == (1, {}), one.message.client
    assert len(list(capture.messages(1))) == 6


def test_the_same_digits_of_other_sizes_are_not_the_same_update(tmp_path: Path) -> None:
    tape = fedaudit.recording(tmp_path / "c", precision="half")
    for client, size in (("a", 1.0), ("b", 4.0), ("c", 1.0)):
        tape.update(1, client, {"w": size * torch.arange(1.0, 50.0)}, kind="delta")
    groups = identical_groups(StoredCapture(tmp_path / "c").messages(1))
    assert sorted(len(group) for group in groups) == [1, 2]


@pytest.mark.parametrize("size", [3e38, 1.0, 1e-9, 1e-30, 1e-44, 0.0])
def test_numbers_of_any_size_have_eleven_bits(size: float) -> None:
    values = torch.linspace(-1, 1, 99) * size
    made = to_half(values)
    assert made
    half, exponent = made
    again = from_half(half, exponent)
    assert torch.isfinite(again).all()
    assert to_half(values / 0) is None
    assert ((again - values).abs() <= ROUNDING * values.abs() + 1e-36).all()
