"""Replayed local training against the client that really trains."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedaudit.attacks.gathering.gather import mean_gradient
from fedaudit.attacks.training.dummy_update import DummyUpdate, dummy_update_for
from fedaudit.attacks.training.replay import replay
from fedaudit.attacks.training.schedule import (
    Pace,
    fixed_order,
    scale_of,
    steady_pace,
    step_factors,
)
from fedaudit.attacks.training.simulated_training import (
    along_simulated_path,
    simulate_pace,
    smooth_noise,
)
from fedaudit.core.capture import Capture
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.shared import Update
from fedaudit.federation.local_training import train_locally
from fedaudit.models.batch_norm import client_mode
from fedaudit.models.build_network import build, parameters_of

Intercept = Callable[..., Capture]
N = 4
SETTINGS = {
    "sgd": LocalTraining(lr=0.05, steps=3, batch_size=N),
    "one step": LocalTraining(lr=0.05, steps=1, batch_size=N, weight_decay=0.1),
    "momentum": LocalTraining(lr=0.02, steps=4, batch_size=N, momentum=0.9, weight_decay=0.05),
    "adam": LocalTraining(lr=1e-3, steps=4, batch_size=N, optimizer="adam", weight_decay=0.05),
    "adamw": LocalTraining(lr=1e-3, steps=4, batch_size=N, optimizer="adamw", weight_decay=5.0),
    "fedprox": LocalTraining(lr=0.05, steps=4, batch_size=N, proximal=2.0),
    "adam, fedprox": LocalTraining(lr=1e-3, steps=3, batch_size=N, optimizer="adam", proximal=2.0),
    "mini-batches": LocalTraining(lr=0.05, steps=5, batch_size=3, momentum=0.5),
}


def task(training: LocalTraining, network: str = "small_cnn", size: int = 16) -> ClientTask:
    spec = ModelSpec(network, {"classes": 5, "image_size": size})
    return ClientTask(
        model=spec,
        before=parameters_of(build(spec, seed=2)),
        kept={},
        images=torch.rand(N, 3, size, size, generator=torch.Generator().manual_seed(1)),
        labels=torch.tensor([0, 3, 1, 2]),
        training=training,
        share="delta",
        generator=torch.Generator().manual_seed(7),
    )


def shared(asked: ClientTask) -> Update:
    update = train_locally(asked).shared[0]
    assert isinstance(update, Update)
    return update


def true_order(asked: ClientTask) -> list[list[int]]:
    """The order that the client shuffles its images into, from its generator."""
    generator = torch.Generator().manual_seed(7)
    torch.randint(2**62, (1,), generator=generator)  # the client's own start
    size, steps = asked.training.batch_size, asked.training.steps
    loader = DataLoader(TensorDataset(torch.arange(N)), size, shuffle=size < N, generator=generator)
    return [batch.tolist() for _ in range(steps) for (batch,) in loader][:steps]


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.flatten() for t in tensors]).detach().double()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("network", ["small_cnn", "face"])
def test_the_replay_of_the_truth_is_what_the_client_shares(name: str, network: str) -> None:
    asked = task(SETTINGS[name], network)
    update = shared(asked)
    model = client_mode(build(asked.model, asked.before), asked.training)
    for create_graph in (True, False):
        delta = replay(
            model,
            asked.before,
            asked.images,
            asked.labels,
            asked.training,
            order=true_order(asked),
            create_graph=create_graph,
        )
        assert list(delta) == list(update.tensors)
        got, true = flat(delta.values()), flat(update.tensors.values())
        # Adam turns the rounding of tiny gradients into steps.
        limit = 1e-2 if asked.training.by_adam else 1e-4
        assert float((got - true).norm() / true.norm()) < limit
        assert all(t.requires_grad == create_graph for t in delta.values())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_is_replayed_in_the_clients_mode_and_left_alone(mode: Any) -> None:
    training = LocalTraining(lr=0.05, steps=3, batch_size=N, batch_norm=mode)
    asked = task(training)
    asked = replace(
        asked, model=ModelSpec("convnet", {"classes": 5, "image_size": 16, "width": 4}), before={}
    )
    model = client_mode(build(asked.model, seed=3), training)
    asked = replace(asked, before=parameters_of(model))
    update = shared(asked)
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    arguments = (model, asked.before, asked.images, asked.labels, training)
    delta = replay(*arguments, order=fixed_order(N, training), create_graph=False)
    true = flat(update.tensors.values())
    assert float((flat(delta.values()) - true).norm() / true.norm()) < 1e-3
    assert all(torch.equal(kept[name], buffer) for name, buffer in model.named_buffers())


class _Tiny(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


@pytest.mark.parametrize("name", ["sgd", "momentum", "fedprox"])
def test_derivatives_are_right(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _Tiny().double()
    training = replace(SETTINGS[name], batch_size=1, steps=3)
    images = torch.rand(2, 1, 2, 2, dtype=torch.double, generator=torch.Generator().manual_seed(0))

    def deltas(x: Tensor) -> tuple[Tensor, ...]:
        order = [[0], [1], [0]]
        return tuple(replay(model, {}, x, torch.tensor([0, 1]), training, order=order).values())

    assert torch.autograd.gradcheck(deltas, (images.requires_grad_(),))


def test_exact_adam_passes_gradcheck_after_its_first_step() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _Tiny().double()
    training = LocalTraining(lr=1e-2, steps=2, optimizer="adam", batch_size=2)
    images = torch.rand(2, 1, 2, 2, dtype=torch.double, generator=torch.Generator().manual_seed(0))

    def deltas(x: Tensor) -> tuple[Tensor, ...]:
        found = replay(model, {}, x, torch.tensor([0, 1]), training, order=[[0, 1]] * 2)
        return tuple(found.values())

    assert torch.autograd.gradcheck(deltas, (images.requires_grad_(),), atol=1e-6)


def test_some_parameters_only() -> None:
    asked = task(SETTINGS["momentum"])
    model = build(asked.model, asked.before)
    arguments: Any = (model, asked.before, asked.images, asked.labels, asked.training)
    order = fixed_order(N, asked.training)
    full = replay(*arguments, order=order)
    names = ["head.bias", "body.1.weight"]
    part = replay(*arguments, order=order, names=names)
    assert list(part) == names
    for name in names:
        torch.testing.assert_close(part[name], full[name])


def test_an_order_of_another_length_is_refused() -> None:
    asked = task(SETTINGS["sgd"])
    model = build(asked.model, asked.before)
    with pytest.raises(AttackError, match="fixed_order"):
        replay(model, {}, asked.images, asked.labels, asked.training, order=[[0]])


# --- along the known line -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "momentum", "fedprox", "adam", "adamw"])
def test_a_course_through_the_true_places_is_nearly_the_replay(name: str) -> None:
    """A small learning rate makes the way straight; then only the gradients' places matter."""
    training = replace(SETTINGS[name], lr=1e-4)
    asked = task(training, "face")
    update = shared(asked)
    dummy = DummyUpdate(
        model=build(asked.model, asked.before),
        before=asked.before,
        update=update,
        training=training,
        count=N,
        softening=0.0,
    )
    target = flat(dummy.target)

    def miss(dummy: DummyUpdate) -> float:
        got = flat(dummy.gradients(asked.images, asked.labels, create_graph=False))
        return float((got - target).norm() / target.norm())

    start, path = miss(replace(dummy, mode="start")), miss(replace(dummy, mode="path"))
    assert miss(dummy) < 0.02
    assert path < 0.5 * start


def test_the_pace_of_constant_slopes() -> None:
    """A linear loss has the same slope everywhere: `steady_pace` and the factors are exact."""
    training = LocalTraining(lr=0.3, steps=5, momentum=0.8)
    weight, velocity, slope, reached = 0.0, 0.0, 2.0, []
    for _ in range(5):
        reached.append(weight)
        velocity = 0.8 * velocity + slope
        weight -= 0.3 * velocity
    assert -weight == pytest.approx(scale_of(training) * slope)
    assert sum(step_factors(training)) == scale_of(training)
    pace = steady_pace(training)
    assert pace.places == pytest.approx([r / weight for r in reached])
    assert sum(pace.parts) == pytest.approx(1)
    assert steady_pace(LocalTraining(steps=1)).center([0]) == 0
    plain = steady_pace(LocalTraining(steps=4, lr=0.0))
    assert plain.center(range(4)) == pytest.approx(3 / 8)
    assert scale_of(LocalTraining(lr=0.0)) == 1.0


def test_groups_contribute_alike() -> None:
    pace = Pace((0.0, 0.8, 0.9, 0.95, 0.97), (0.8, 0.1, 0.05, 0.03, 0.02))
    assert pace.groups(2) == [range(1), range(1, 5)]
    assert pace.groups(1) == [range(5)]
    even = steady_pace(LocalTraining(steps=6))
    assert even.groups(3) == [range(2), range(2, 4), range(4, 6)]
    assert Pace((0.0, 1.1), (1.1, -0.1)).center([1]) == 1.1


def test_simulated_training_finds_the_pace_of_an_overshooting_client(intercept: Intercept) -> None:
    """A large learning rate fits one face in the first step; a steady pace gets that wrong."""
    training = LocalTraining(lr=0.1, steps=4)
    captured = intercept(method="fedavg", training=training)
    seen, secret = captured.seen, captured.secret
    assert secret is not None
    model = client_mode(build(seen.model, seen.before), training)
    dummy = dummy_update_for(seen, model)
    noise = torch.Generator().manual_seed(0)
    found = along_simulated_path(dummy, (3, 32, 32), secret.labels, noise)
    assert found.pace is not None
    assert found.pace.places[0] == 0
    assert found.pace.parts[0] > 0.9
    assert sum(found.pace.parts) == pytest.approx(1, abs=1e-4)
    true = simulate_pace(model, seen.before, secret.images, secret.labels, training)
    assert found.pace.places == pytest.approx(true.places, abs=0.1)

    def match(dummy: DummyUpdate) -> float:
        got = flat(dummy.gradients(secret.images, secret.labels, create_graph=False))
        return float(torch.cosine_similarity(got, flat(dummy.target), dim=0))

    assert match(replace(found, points=1)) > 0.99
    assert match(replace(found, pace=None, points=1)) < 0.5
    plain = replace(dummy, update=replace(dummy.update, kind="gradient"))
    assert along_simulated_path(plain, (3, 32, 32), secret.labels, noise) is plain


def test_smooth_noise_is_gray_and_smooth() -> None:
    images = smooth_noise(3, (3, 32, 32), torch.Generator().manual_seed(0))
    assert images.shape == (3, 3, 32, 32)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert torch.equal(images[:, 0], images[:, 2])
    rough = (images[..., 1:] - images[..., :-1]).abs().mean()
    assert rough < 0.3 * images.std()


# --- the dummy ------------------------------------------------------------------------------------


def test_what_a_call_costs() -> None:
    training = LocalTraining(steps=6, batch_size=2)
    asked = task(training)
    dummy = DummyUpdate(
        model=build(asked.model), before={}, update=shared(asked), training=training, count=N
    )
    assert dummy.passes == 12
    assert replace(dummy, mode="path").passes == 12
    assert replace(dummy, mode="path", points=2).passes == 8
    assert replace(dummy, mode="start").passes == N
    with pytest.raises(AttackError, match=f"takes {N + 1} images"):
        replace(dummy, count=N + 1).gradients(asked.images, asked.labels)


def test_a_shared_gradient_is_one_plain_step() -> None:
    asked = replace(task(LocalTraining(batch_size=N)), share="gradient")
    update = shared(asked)
    for training in (asked.training, SETTINGS["adam"]):
        dummy = DummyUpdate(
            model=build(asked.model, asked.before),
            before=asked.before,
            update=update,
            training=training,
            count=N,
            names=("head.weight", "body.3.weight"),
        )
        assert dummy.matched == ("head.weight", "body.3.weight")
        got = dummy.gradients(asked.images, asked.labels)
        for value, name in zip(got, dummy.matched, strict=True):
            torch.testing.assert_close(value, update.tensors[name], rtol=1e-3, atol=1e-6)
    with pytest.raises(AttackError, match="none of these"):
        replace(dummy, names=("nothing",)).gradients(asked.images, asked.labels)


def test_a_trial_needs_settings(intercept: Intercept) -> None:
    seen = intercept(method="fedavg", network="small_cnn", threat="B").seen
    model = build(seen.model, seen.before)
    with pytest.raises(KnowledgeError, match="threat model C"):
        dummy_update_for(seen, model)
    assert dummy_update_for(seen, model, LocalTraining()).training == LocalTraining()
    with pytest.raises(AttackError, match="no model update"):
        dummy_update_for(replace(seen, shared=()), model)


def test_weight_decay_and_the_proximal_pull_leave_the_mean_gradient(intercept: Intercept) -> None:
    plain = LocalTraining(lr=1e-3, steps=3, momentum=0.9)
    pulled = replace(plain, weight_decay=0.5, proximal=1.0)
    clean, decayed = (
        intercept(method="fedavg", network="face", training=t).seen for t in (plain, pulled)
    )
    assert clean.update is not None
    assert decayed.update is not None
    truth = flat(mean_gradient(clean, clean.update).values())
    found = flat(mean_gradient(decayed, decayed.update).values())
    assert float((found - truth).norm() / truth.norm()) < 0.01
    raw = -flat(decayed.update.tensors.values()) / scale_of(pulled)
    assert float((raw - truth).norm() / truth.norm()) > 0.1


def test_decay_beside_steps_leaves_the_mean_step(intercept: Intercept) -> None:
    plain = LocalTraining(lr=1e-4, steps=3, optimizer="adamw")
    pulled = replace(plain, weight_decay=20.0)
    clean, decayed = (
        intercept(method="fedavg", network="face", training=t).seen for t in (plain, pulled)
    )
    assert clean.update is not None
    assert decayed.update is not None
    truth = flat(mean_gradient(clean, clean.update).values())
    raw = -flat(decayed.update.tensors.values()) / scale_of(pulled)
    found = flat(mean_gradient(decayed, decayed.update).values())
    assert float((found - truth).norm()) < 0.2 * float((raw - truth).norm())


# --- epochs ---------------------------------------------------------------------------------------


def test_fixed_orders() -> None:
    training = LocalTraining(steps=5, batch_size=2)
    assert fixed_order(3, training) == [[0, 1], [2], [0, 1], [2], [0, 1]]
    assert fixed_order(3, LocalTraining(steps=2, batch_size=8)) == [[0, 1, 2]] * 2
