"""Faces come back where nothing protects them, and do not where there is nothing to see."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.registry import create

Intercept = Callable[..., Capture]
SHORT = gan_inversion(candidates=64, latent_steps=20, stage_steps=20, pixel_steps=60)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ssim(one: Tensor, two: Tensor) -> float:
    """Wang's setting, on the first channel: ORL is gray."""
    value: Any = structural_similarity(
        one[0].numpy(),
        two[0].numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
    )
    return float(value)


def secret_of(captured: Capture) -> Tensor:
    assert captured.secret is not None
    return captured.secret.images[captured.secret.labels.argsort()]


@pytest.mark.slow
def test_gan_inversion_returns_a_face_and_only_from_the_update(intercept: Intercept) -> None:
    captured = intercept()
    truth = secret_of(captured)[0]
    found = SHORT(captured.seen, generator=noise())
    control = SHORT(without_update(captured.seen, noise(1)), generator=noise())
    assert ssim(found.images[0], truth) > 0.8
    assert ssim(control.images[0], truth) < 0.4
    assert found.objective < 0.5 * control.objective
    assert torch.equal(found.images[:, 0], found.images[:, 1])  # it knows that they are gray


@pytest.mark.slow  # two searches
def test_colors_that_noise_makes_up_are_held_small(intercept: Intercept) -> None:
    """Where noise hides that a photo is gray, brightness stays, and color is less free than it."""
    captured = intercept(defense="gaussian_noise", settings={"std": 1.0, "of": "norm"})
    truth = secret_of(captured)[0]
    each = tuple(replace(stage, color_weights=None) for stage in SHORT.stages)
    found, plain = (
        attack(captured.seen, generator=noise()).images[0]
        for attack in (SHORT, replace(SHORT, stages=each))
    )
    colors, made_up = (float((one - one.mean(0)).abs().mean()) for one in (found, plain))
    assert made_up > 0.01
    assert colors < 0.6 * made_up
    assert ssim(found.mean(0, keepdim=True), truth) > 0.9


def test_inverting_gradients_returns_a_face(intercept: Intercept) -> None:
    captured = intercept()
    truth = secret_of(captured)[0]
    attack = inverting_gradients(steps=90)
    found = attack(captured.seen, generator=noise())
    assert ssim(found.images[0], truth) > 0.5
    assert found.history[-1][1] < 0.6 * found.history[0][1]


@pytest.mark.slow  # a long search
def test_two_faces_come_back_one_at_a_time(intercept: Intercept) -> None:
    captured = intercept(batch=2)
    found = SHORT(captured.seen, generator=noise())
    assert captured.secret is not None
    assert found.labels.tolist() == sorted(captured.secret.labels.tolist())
    for image, truth in zip(found.images, secret_of(captured), strict=True):
        assert ssim(image, truth) > 0.7


def test_restarts_side_by_side_are_the_restarts_one_by_one(intercept: Intercept) -> None:
    """Three in one pass find what the best of the three finds alone, from the same starts."""
    seen = intercept().seen
    several = inverting_gradients(steps=8, restarts=3)(seen, generator=noise())
    generator = noise()  # successive starts are drawn as one block
    alone = [inverting_gradients(steps=8)(seen, generator=generator) for _ in range(3)]
    best = min(alone, key=lambda found: found.objective)
    assert several.objective == pytest.approx(best.objective, rel=1e-3)
    assert ssim(several.images[0], best.images[0]) > 0.99
    assert several.iterations == 8
    assert several.gradient_evaluations == 3 * 8 + 3


def test_a_time_limit_ends_the_search(intercept: Intercept) -> None:
    found = inverting_gradients(steps=100_000, seconds=0.5)(intercept().seen, generator=noise())
    assert 10 <= found.iterations < 1000


def test_a_stalled_search_ends(intercept: Intercept) -> None:
    attack = inverting_gradients(steps=400, lr=1e-9, patience=20)
    assert attack(intercept().seen, generator=noise()).iterations <= 40


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("inverting_gradients", {"steps": 0}),
        ("inverting_gradients", {"restarts": 0}),
        ("inverting_gradients", {"lr": 0.0}),
        ("inverting_gradients", {"total_variation": -1.0}),
        ("inverting_gradients", {"schedule": "linear"}),
        ("gan_inversion", {"candidates": 0}),
        ("gan_inversion", {"pixel_steps": -1}),
        ("gan_inversion", {"total_variation": -1.0}),
    ],
)
def test_settings_out_of_range(name: str, settings: dict[str, Any]) -> None:
    from fedaudit.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"refused its settings|must be"):
        create("attacks", name, settings)
