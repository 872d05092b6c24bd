"""What an attack is handed of a recorded update, in whatever form it was recorded."""

import gc
import sys
import weakref
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

import fedaudit
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.shared import Buffers, Update
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from mlp_capture import LR, SHAPE, flat, mlp, photos, record_mlp, trained, update_of


@pytest.mark.parametrize(
    "form", ["weights", "delta", "negated", "gradient", "prefixed", "numbered"]
)
def test_an_attack_gets_the_photo_out_of_every_form(tmp_path: Path, form: str) -> None:
    network = mlp()
    before = network.state_dict()
    images, labels = photos(1)
    after, gradient = trained(network, images, labels)
    record = record_mlp(tmp_path / "c")
    prefix = "module." if form == "prefixed" else ""
    numbers = {name: str(place) for place, name in enumerate(before)}
    if form == "numbered":  # as Flower's older API, which knows no names
        record.broadcast(1, {numbers[n]: v for n, v in before.items()})
    else:
        record.broadcast(1, {prefix + n: v for n, v in before.items()})
    if form in {"weights", "prefixed"}:
        sent = {prefix + n: v for n, v in after.items()}
        record.update(1, "c", sent, kind="weights", examples=40)
    elif form == "numbered":
        sent = {numbers[n]: v for n, v in after.items()}
        record.update(1, "c", sent, kind="weights", examples=40)
    elif form == "gradient":
        record.update(1, "c", gradient, kind="gradient", examples=1)
    else:
        sign: Literal[1, -1] = -1 if form == "negated" else 1
        sent = {n: sign * (v - before[n]) for n, v in after.items()}
        record.update(1, "c", sent, kind="delta", sign=sign, examples=40)
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    assert capture.secret is None
    seen = capture.seen
    assert (seen.batch_size, seen.num_classes, seen.image_shape) == (1, 5, SHAPE)
    assert seen.defense is None  # not stated
    update = update_of(capture)
    scale = 1 if form == "gradient" else -LR
    assert torch.allclose(flat(update.tensors), scale * flat(gradient), atol=1e-7)
    found = create("attacks", "analytic", {})(seen, generator=torch.Generator())
    assert torch.allclose(found.images, images, atol=1e-3)
    assert torch.equal(found.labels, labels)


def test_buffers_are_split_off_and_count_from_zero(tmp_path: Path) -> None:
    network = build(ModelSpec("convnet", {"classes": 5, "width": 4, "image_size": 16}))
    images = torch.rand(2, 3, 16, 16)
    network(images)  # the broadcast has been trained before
    before = {n: v.clone() for n, v in network.state_dict().items()}
    network(images)
    network(images)
    after = network.state_dict()
    sent = {n: v + (1e-3 if v.is_floating_point() else 0) for n, v in after.items()}
    averaged = {n: v + 0.5 if "num_batches" in n else v for n, v in before.items()}
    record = fedaudit.recording(tmp_path / "c", model="convnet", arguments={"width": 4}, classes=5)
    record.broadcast(1, before)
    record.update(1, "weights", sent, kind="weights")
    record.update(1, "delta", {n: v - before[n] for n, v in sent.items()}, kind="delta")
    record.broadcast(2, averaged)  # a server that averages counters
    record.update(2, "weights", sent, kind="weights")
    stored = StoredCapture(tmp_path / "c")
    captures = list(observations(stored))
    assert not stored.problems
    assert len(captures) == 3
    parameters = {name for name, _ in network.named_parameters()}
    for capture in captures:
        assert set(update_of(capture).tensors) == parameters
        buffers = capture.seen.buffers
        assert buffers is not None
        assert set(buffers.tensors) == set(before) - parameters
        for name, value in buffers.tensors.items():
            if name.endswith("num_batches_tracked"):
                assert int(value) == 2
            else:
                assert torch.allclose(value, sent[name], atol=1e-6)
        assert not [n for n in capture.seen.before if n.endswith("num_batches_tracked")]


def test_a_head_that_nobody_sends_is_no_fault(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, network.state_dict())
    for client in range(2):
        after = trained(network, *photos(1, seed=client))[0]
        shared = {n: v for n, v in after.items() if not n.startswith("head.")}
        record.update(1, client, shared, kind="weights")
    stored = StoredCapture(tmp_path / "c")
    for capture in observations(stored):
        assert not [n for n in update_of(capture).tensors if n.startswith("head.")]
    assert not stored.problems


def test_one_update_is_held_at_a_time(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, network.state_dict())
    for client in range(3):
        record.update(1, client, trained(network, *photos(1, seed=client))[0], kind="weights")
    seen = observations(StoredCapture(tmp_path / "c"))
    earlier: list[weakref.ref[Tensor]] = []
    for capture in seen:
        gc.collect()
        assert not [ref for ref in earlier if ref() is not None]
        shared = capture.seen.shared[0]
        assert isinstance(shared, Update)
        earlier = [weakref.ref(tensor) for tensor in shared.tensors.values()]
        del capture, shared
    assert earlier


def test_images_that_were_normalized_outside_the_model_come_back_in_0_1(tmp_path: Path) -> None:
    network = mlp()
    before = network.state_dict()
    images, labels = photos(1)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    shape = (1, 3, 1, 1)
    inside = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    after, _ = trained(network, inside, labels)
    record = fedaudit.recording(
        tmp_path / "c",
        model="mlp",
        arguments={"hidden": 32},
        classes=5,
        image_shape=SHAPE,
        lr=LR,
        local_steps=1,
        batch_size=1,
        mean=mean,
        std=std,
    )
    record.broadcast(1, before)
    record.update(1, "c", after, kind="weights")
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    rebuilt = build(capture.seen.model, capture.seen.before)
    assert torch.allclose(rebuilt(images), network(inside), atol=1e-5)
    _, gradient = trained(rebuilt, images, labels)
    assert torch.allclose(flat(update_of(capture).tensors), -LR * flat(gradient), atol=1e-6)


def test_rounds_and_clients_can_be_chosen(tmp_path: Path) -> None:
    network = mlp()
    record = record_mlp(tmp_path / "c")
    for number in (1, 2, 3):
        record.broadcast(number, network.state_dict())
        for client in range(3):
            after = trained(network, *photos(1, seed=10 * number + client))[0]
            record.update(number, client, after, kind="weights")
    stored = StoredCapture(tmp_path / "c")
    chosen = observations(stored, rounds=[3, 1], clients=["2"])
    assert [(c.seen.round, c.seen.client) for c in chosen] == [(1, "2"), (3, "2")]


def test_buffers_alone_make_no_shared_buffers_of_a_gradient(tmp_path: Path) -> None:
    network = build(ModelSpec("convnet", {"classes": 5, "width": 4, "image_size": 16}))
    record = fedaudit.recording(tmp_path / "c", model="convnet", arguments={"width": 4}, classes=5)
    record.broadcast(1, network.state_dict())
    gradient = {n: torch.ones_like(p) for n, p in network.named_parameters()}
    record.update(1, "c", gradient, kind="gradient", examples=2)
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    assert not [s for s in capture.seen.shared if isinstance(s, Buffers)]
    assert capture.seen.training is not None
    assert (capture.seen.training.steps, capture.seen.training.batch_size) == (1, 2)
