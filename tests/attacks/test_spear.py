"""Batches of real faces, exactly, out of the zeros that ReLU leaves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.closed_form.first_layer import find_first
from fedaudit.attacks.closed_form.spear import Factors, Spear, mismatch
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.pairing import pair

Intercept = Callable[..., Capture]


@pytest.fixture
def mlp(federate: Callable[..., Simulation]) -> Simulation:
    return federate(network="mlp")


def run(capture: Capture, seed: int = 0, **settings: Any) -> Reconstruction:
    return Spear(**settings)(capture.seen, generator=torch.Generator().manual_seed(seed))


def psnr(capture: Capture, result: Reconstruction) -> Tensor:
    """Of each original, in dB, paired as the scorer does it."""
    secret = capture.secret
    assert secret is not None
    order = pair(secret.images, secret.labels, result.images, result.labels)
    error = (secret.images - result.images[list(order)]).square().flatten(1).mean(1)
    return -10 * error.clamp_min(1e-20).log10()


@pytest.mark.parametrize("descend", [True, False])
@pytest.mark.parametrize("batch", [2, 4, 8])
def test_a_batch_comes_back_exactly(
    batch: int, descend: bool, intercept: Intercept, mlp: Simulation
) -> None:
    capture = intercept(batch=batch, simulation=mlp)
    result = run(capture, descend=descend)
    assert float(psnr(capture, result).min()) > 60
    assert result.objective < 1e-4
    assert result.history[-1][1] < 1e-3
    assert capture.secret is not None
    assert sorted(result.labels.tolist()) == sorted(capture.secret.labels.tolist())


@pytest.mark.slow
def test_descents_reach_what_sampling_does_not(intercept: Intercept, mlp: Simulation) -> None:
    capture = intercept(batch=12, simulation=mlp)
    sampled = run(capture, samples=2048, descend=False)
    descended = run(capture, samples=2048)
    assert float(psnr(capture, sampled).min()) < 30
    assert float(psnr(capture, descended).min()) > 60


def test_the_true_images_have_no_mismatch_and_others_do(
    intercept: Intercept, mlp: Simulation
) -> None:
    capture = intercept(batch=4, simulation=mlp)
    evidence = gather(capture.seen)
    layer = find_first(evidence.model, evidence.target, evidence.shape)
    assert capture.secret is not None
    true = layer.offset + layer.scale * capture.secret.images.flatten(1).double()
    mixed = true.roll(1, 0) * 0.5 + true * 0.5
    assert mismatch(layer, true) < 1e-3
    assert mismatch(layer, mixed) > 0.1
    factors = Factors.of(layer, 4)
    assert factors is not None
    assert factors.rank == 4
    eye = torch.eye(4).double()
    assert torch.allclose(factors.left.T @ factors.left, eye, atol=1e-9)


def test_one_image_needs_no_search(intercept: Intercept, mlp: Simulation) -> None:
    capture = intercept(simulation=mlp)
    result = run(capture)
    assert result.iterations == 0
    assert float(psnr(capture, result).min()) > 60


def test_noise_leaves_no_rank(intercept: Intercept) -> None:
    capture = intercept(batch=2, network="mlp", defense="dpsgd")
    result = run(capture)
    assert result.iterations == 0
    assert result.objective > 0.1


def test_refuses_convolutions(intercept: Intercept) -> None:
    with pytest.raises(AttackError, match="Use inverting_gradients"):
        run(intercept())


@pytest.mark.parametrize("settings", [{"samples": 0}, {"zeros": 0.0}, {"zeros": 1.0}])
def test_refuses_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Spear(**settings)
