"""One division gives the image: exactly, where one image alone activates a neuron."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.closed_form.analytic import Analytic, recover_inputs
from fedaudit.attacks.closed_form.first_layer import find_first
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build, parameters_of
from fedaudit.scoring.pairing import pair

Intercept = Callable[..., Capture]
GradientOf = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def run(seen: Observation, **settings: Any) -> Reconstruction:
    return Analytic(**settings)(seen, generator=torch.Generator().manual_seed(0))


def paired(capture: Capture, result: Reconstruction) -> tuple[Tensor, Tensor]:
    """Originals and what came back for each, by label first, as the scorer does it."""
    secret = capture.secret
    assert secret is not None
    order = pair(secret.images, secret.labels, result.images, result.labels)
    return secret.images, result.images[list(order)]


@pytest.mark.parametrize("head", ["linear", "cosface", "arcface"])
def test_one_image_is_exact(
    head: str, intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    capture = intercept(simulation=federate(network="mlp", arguments={"head": head}))
    result = run(capture.seen)
    original, found = paired(capture, result)
    assert float((original - found).abs().max()) < 1e-5
    assert capture.secret is not None
    assert torch.equal(result.labels, capture.secret.labels)
    assert result.objective < 1e-6


def test_golden_value(gradient_of: GradientOf) -> None:
    """By hand: W x + b with x = (0.2, 0.6, 1), one ReLU neuron; the quotient must be x."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 2))
    values = [[[1.0, 2.0, 3.0]], [0.5], [[1.0], [-1.0]], [0.0, 0.0]]
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.data = torch.tensor(value)
    image = torch.tensor([0.2, 0.6, 1.0]).reshape(1, 3, 1, 1)
    target = gradient_of(model, image, torch.tensor([1]))
    layer = find_first(model, target, (3, 1, 1))
    assert torch.allclose(layer.images(recover_inputs(layer, 1)), image, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2])
def test_every_image_that_is_alone_somewhere_comes_back(
    depth: int, intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    network = {"hidden": 512, "depth": depth}
    capture = intercept(batch=4, simulation=federate(network="mlp", arguments=network))
    original, found = paired(capture, run(capture.seen))
    assert float((original - found).abs().max()) < 1e-3


def test_says_so_where_neurons_do_not_agree(
    intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    capture = intercept(batch=16, simulation=federate(network="mlp", arguments={"hidden": 24}))
    result = run(capture.seen)
    assert result.images.shape == (16, 3, 32, 32)
    assert result.objective > 1e-3


def test_mixtures_are_not_taken_for_images(
    intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    """A tolerance that lets everything agree gives one mixture; the default does not."""
    capture = intercept(batch=2, simulation=federate(network="mlp"))
    assert run(capture.seen).objective < 1e-5 < run(capture.seen, tolerance=10.0).objective


def test_several_local_steps_blur_but_do_not_fail(
    intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    training = LocalTraining(lr=0.01, steps=3)
    simulation = federate(network="mlp", method="fedavg")
    capture = intercept(simulation=simulation, training=training)
    original, found = paired(capture, run(capture.seen))
    assert float((original - found).abs().max()) < 0.01


class WithoutBias(nn.Sequential):
    def __init__(self, classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3072, classes, bias=False))


class Mixed(nn.Sequential):
    def __init__(self, classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Softmax(1), nn.Linear(3072, classes))


@pytest.mark.parametrize("kind", [WithoutBias, Mixed])
def test_refuses_what_it_cannot_divide(
    kind: type[nn.Module], intercept: Intercept, gradient_of: GradientOf
) -> None:
    spec = ModelSpec(f"{__name__}:{kind.__name__}", {"classes": 30})
    model = build(spec)
    target = gradient_of(model, torch.rand(1, 3, 32, 32), torch.tensor([1]))
    seen = replace(
        intercept().seen,
        model=spec,
        before=parameters_of(model),
        shared=(Update("gradient", target),),
    )
    with pytest.raises(AttackError, match="no bias" if kind is WithoutBias else "scaled and"):
        run(seen)


def test_refuses_convolutions_and_says_what_to_use(intercept: Intercept) -> None:
    with pytest.raises(AttackError, match=r"Conv2d.*Use inverting_gradients or gan_inversion"):
        run(intercept().seen)


def test_refuses_a_first_layer_that_was_not_shared(
    intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    seen = intercept(simulation=federate(network="mlp")).seen
    assert seen.update is not None
    kept = {k: v for k, v in seen.update.tensors.items() if k.startswith("head.")}
    with pytest.raises(AttackError, match="not shared"):
        run(replace(seen, shared=(Update("gradient", kept),)))


@pytest.mark.parametrize("settings", [{"tolerance": 0.0}, {"neurons": 1}])
def test_refuses_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Analytic(**settings)
