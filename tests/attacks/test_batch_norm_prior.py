"""Statistics of batch norm: what a client gives away, and the prior that uses it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.search.batch_norm_prior import (
    BatchNormPrior,
    from_buffers,
    from_observation,
    of_faces,
    running,
)
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.shared import Buffers
from fedaudit.federation.simulation import Simulation
from fedaudit.models.batch_norm import (
    batch_norm_layers,
    batch_statistics,
    client_mode,
    collect_buffers,
)
from fedaudit.models.build_network import build

Intercept = Callable[..., Capture]
Federate = Callable[..., Simulation]
SMALL = {"width": 4}


@pytest.fixture
def network(federate: Federate) -> Simulation:
    return federate(network="convnet", arguments=SMALL, method="fedavg")


def opened(captured: Capture) -> tuple[Observation, Secret, nn.Module]:
    assert captured.secret is not None
    seen = captured.seen
    return seen, captured.secret, client_mode(build(seen.model, seen.before), seen.training)


def close(one: Any, two: Any, tolerance: float) -> None:
    assert set(one) == set(two)
    for name, value in two.items():
        limit = tolerance * float(value.abs().max())
        torch.testing.assert_close(one[name], value, rtol=0, atol=limit)


def by_hand(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Running the body layer by layer, without hooks."""
    found: dict[str, Tensor] = {}
    x: Any = images
    body: Any = model.body
    for number, layer in enumerate(body):
        if isinstance(layer, nn.BatchNorm2d):
            found[f"body.{number}.mean"] = x.mean((0, 2, 3))
            found[f"body.{number}.var"] = x.var((0, 2, 3), unbiased=False)
            if layer.training:
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            else:
                mean, var = torch.as_tensor(layer.running_mean), torch.as_tensor(layer.running_var)
            shape = (1, -1, 1, 1)
            x = (x - mean.view(shape)) / (var.view(shape) + layer.eps).sqrt()
            x = x * layer.weight.view(shape) + layer.bias.view(shape)
        else:
            x = layer(x)
    return found


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_statistics_are_granted_as_the_client_saw_them(
    mode: Any, network: Simulation, intercept: Intercept
) -> None:
    training = LocalTraining(batch_size=4, batch_norm=mode)
    seen, secret, model = opened(
        intercept(simulation=network, batch=4, training=training, threat="E")
    )
    assert seen.statistics is not None
    with torch.no_grad():
        close(seen.statistics, by_hand(model, secret.images), 1e-4)
    withheld = intercept(simulation=network, batch=4, training=training, threat="D").seen
    assert withheld.statistics is None
    assert intercept(batch=1, threat="E").seen.statistics is None  # no batch norm, no statistics


def test_one_step_gives_the_batch_away_through_the_running_statistics(
    network: Simulation, intercept: Intercept
) -> None:
    captured = intercept(simulation=network, batch=4, training=LocalTraining(batch_size=4))
    seen, secret, model = opened(captured)
    assert seen.buffers is not None
    found = from_buffers(model, seen.before, seen.buffers.tensors, (3, 32, 32), 4)
    with torch.no_grad():
        close(found, batch_statistics(model, secret.images), 1e-4)
    source = from_observation(seen, model)
    assert source is not None
    close(source, found, 1e-6)


def test_several_steps_give_their_mean_away(network: Simulation, intercept: Intercept) -> None:
    still = LocalTraining(lr=0.0, steps=3, batch_size=4)  # the same statistics in every step
    seen, secret, model = opened(intercept(simulation=network, batch=4, training=still))
    assert seen.buffers is not None
    counters = [v for n, v in seen.buffers.tensors.items() if n.endswith("tracked")]
    assert [int(c) for c in counters] == [3] * 8  # the counters tell the number of steps
    found = from_buffers(model, seen.before, seen.buffers.tensors, (3, 32, 32), 4)
    with torch.no_grad():
        truth = batch_statistics(model, secret.images)
    close(found, truth, 1e-4)
    wrong = from_buffers(model, seen.before, seen.buffers.tensors, (3, 32, 32), 4, steps=1)
    name = next(iter(truth))
    assert not torch.allclose(wrong[name], truth[name], rtol=0.1)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_prior_is_zero_at_the_truth_and_pulls_toward_it(
    mode: Any, network: Simulation, intercept: Intercept
) -> None:
    training = LocalTraining(batch_size=4, batch_norm=mode)
    seen, secret, model = opened(
        intercept(simulation=network, batch=4, training=training, threat="E")
    )
    assert seen.statistics is not None
    kept = {name: b.clone() for name, b in model.named_buffers()}
    prior = BatchNormPrior(model, seen.statistics)
    assert float(prior(secret.images).detach()) < 1e-4
    # A batch's statistics do not know its order.
    assert float(prior(secret.images[[3, 1, 0, 2]]).detach()) < 1e-4
    noise = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noise.requires_grad_()
    far = prior(noise)
    (slope,) = torch.autograd.grad(far, noise)
    assert float(far.detach()) > 0.1
    assert float(slope.flatten(1).norm(dim=1).min()) > 0
    nearer = prior(noise - 0.01 * slope / slope.norm())
    assert float(nearer.detach()) < float(far.detach())
    assert all(torch.equal(kept[name], b) for name, b in model.named_buffers())
    assert not any(layer._forward_pre_hooks for layer in batch_norm_layers(model).values())


def test_listening_costs_no_pass_of_its_own(network: Simulation, intercept: Intercept) -> None:
    seen, _, model = opened(intercept(simulation=network, batch=2, threat="E"))
    assert seen.statistics is not None
    prior = BatchNormPrior(model, seen.statistics)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with prior.listening() as distance:
        model(images)
        heard = distance()
    torch.testing.assert_close(heard, prior(images))
    with pytest.raises(RuntimeError, match="deliberate"), prior.listening():
        raise RuntimeError("deliberate")
    assert not any(layer._forward_pre_hooks for layer in batch_norm_layers(model).values())


def test_sources_in_order(network: Simulation, intercept: Intercept) -> None:
    training = LocalTraining(batch_size=2, batch_norm="eval")  # shares no buffers
    seen, secret, model = opened(
        intercept(simulation=network, batch=2, training=training, threat="E")
    )
    assert seen.buffers is None
    assert from_observation(seen, model) == dict(seen.statistics or {})
    bare = replace(seen, statistics=None)
    assert from_observation(bare, model) is None  # a fresh model's running statistics say nothing
    faces = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = from_observation(bare, model, faces)
    assert found is not None
    with torch.no_grad():
        parts = [batch_statistics(model, faces[i : i + 2]) for i in (0, 2)]
    close(found, {n: (parts[0][n] + parts[1][n]) / 2 for n in parts[0]}, 1e-6)
    close(of_faces(model, faces, 2), found, 1e-6)
    model.train()
    model(secret.images)
    trained = from_observation(bare, model)
    assert trained is not None
    assert set(trained) == set(running(model)) == set(found)
    plain = intercept(batch=1, threat="E").seen
    assert from_observation(plain, build(plain.model, plain.before)) is None


def test_a_prior_needs_batch_norm(intercept: Intercept) -> None:
    seen = intercept(batch=1).seen
    with pytest.raises(AttackError, match="no batch-norm layers"):
        BatchNormPrior(build(seen.model, seen.before), {})


def test_a_prior_needs_every_layer(network: Simulation) -> None:
    model = build(network.spec(0))
    with pytest.raises(AttackError, match=r"'body\.11\.mean' are missing"):
        BatchNormPrior(model, {k: v for k, v in running(model).items() if k != "body.11.mean"})


# --- the federation -------------------------------------------------------------------------------


def test_the_control_keeps_nothing_of_the_clients_statistics(
    network: Simulation, intercept: Intercept
) -> None:
    seen = intercept(simulation=network, batch=2, threat="E").seen
    control = without_update(seen, torch.Generator().manual_seed(0))
    assert control.statistics is None
    assert control.buffers is not None
    assert seen.buffers is not None
    for name, value in control.buffers.tensors.items():
        expected = seen.buffers.tensors if name.endswith("tracked") else seen.before
        assert torch.equal(value, expected[name])
    moved = [
        n for n, v in seen.buffers.tensors.items() if not torch.equal(v, seen.before.get(n, v))
    ]
    assert len(moved) == 16


def test_the_server_broadcasts_the_mean_of_the_clients_statistics(federate: Federate) -> None:
    simulation = federate(
        network="convnet", arguments=SMALL, method="fedavg", local_steps=1, batch_size=2, photos=1
    )
    fresh = simulation.fresh()
    name = "body.2.running_mean"
    assert float(fresh.server[name].abs().max()) == 0
    after, _ = simulation.train(fresh, range(1, 2))
    assert set(after.server) == set(fresh.server)
    assert float(after.server[name].abs().max()) > 0
    again, _ = simulation.train(after, range(2, 3))
    assert not torch.equal(again.server[name], after.server[name])
    still = federate(
        network="convnet", arguments=SMALL, method="fedavg", local_steps=1, batch_norm="eval"
    )
    kept, _ = still.train(still.fresh(), range(1, 2))
    assert float(kept.server[name].abs().max()) == 0


def test_what_is_withheld_keeps_its_buffers_at_home(federate: Federate) -> None:
    simulation = federate(
        network="convnet",
        arguments=SMALL,
        method="fedavg",
        defense="private_projector",
        settings={"private": ("body.2.", "head.")},
    )
    fresh = simulation.fresh()
    assert "body.2.running_mean" not in fresh.server
    photos = simulation.split.train[simulation.split.clients[0][0]][:2]
    noise = torch.Generator().manual_seed(0)
    returned = simulation.step(fresh, 0, photos, LocalTraining(batch_size=2), noise)
    sent = returned.shared[1]
    assert isinstance(sent, Buffers)
    assert not any(name.startswith("body.2.") for name in sent.tensors)
    assert "body.5.running_mean" in sent.tensors
    assert {"body.2.running_mean", "body.2.num_batches_tracked"} <= set(returned.kept)


def test_moved_buffers_are_what_a_state_dict_has(network: Simulation) -> None:
    model = build(network.spec(0))
    model(torch.rand(2, 3, 32, 32))
    own = dict(model.named_buffers())
    found = collect_buffers(model)
    assert set(found) == set(own)
    assert all(torch.equal(found[name], own[name]) for name in own)
