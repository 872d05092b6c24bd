"""Local training that is not granted, guessed from the update."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fedaudit.attacks.training.training_inference import (
    count_steps,
    guess_training,
    plausible,
    relative_error,
    unlike,
)
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import LocalTraining
from fedaudit.models.build_network import build

Intercept = Callable[..., Capture]
GRID = plausible(2, steps=(1, 4), rates=(0.1, 0.01, 0.001), adam_rates=(0.01, 0.001))
TRUE = [
    LocalTraining(0.01, 4, 2),
    LocalTraining(0.001, 1, 2),
    LocalTraining(0.001, 4, 2, 0.9),
    LocalTraining(0.001, 4, 2, optimizer="adam"),
]


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_what_is_plausible() -> None:
    found = plausible(4, steps=(1, 2), rates=(0.1,), adam_rates=(0.01,))
    assert LocalTraining(0.1, 1, 4) in found
    assert LocalTraining(0.1, 2, 2, 0.9) in found
    assert LocalTraining(0.01, 2, 4, optimizer="adam") in found
    # A single step has no momentum, and one step of two would leave two images unused.
    assert not any(c.steps == 1 and (c.momentum or c.batch_size == 2) for c in found)
    assert len(set(found)) == len(found) == 2 + 2 * 3
    assert {c.batch_size for c in plausible(1)} == {1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "training"), [("face", TRUE[0]), *(("small_cnn", training) for training in TRUE)]
)
def test_noise_tells_the_optimizer_and_the_size_of_its_steps(
    network: str, training: LocalTraining, intercept: Intercept
) -> None:
    captured = intercept(
        network=network, method="fedavg", batch=2, training=training, threat="B", grant=("labels",)
    )
    seen, secret = captured.seen, captured.secret
    assert secret is not None
    assert seen.training is None
    assert seen.labels is not None
    model = build(seen.model, seen.before)
    guesses = guess_training(seen, model, seen.labels, GRID, noise())
    assert [g.distance for g in guesses] == sorted(g.distance for g in guesses)
    assert guesses[0].training.optimizer == training.optimizer
    assert training in [g.training for g in guesses[:8]]
    # With the right images in place of noise there is no doubt left.
    likely = [g.training for g in guesses[:8]]
    sure = guess_training(seen, model, seen.labels, likely, noise(), images=secret.images)
    assert sure[0].training == training
    assert sure[0].distance < 0.02
    assert sure[1].distance > 3 * sure[0].distance


def test_counters_of_batch_norm_tell_the_number_of_steps(intercept: Intercept) -> None:
    training = LocalTraining(lr=1e-3, steps=4, batch_size=2)
    seen = intercept(
        network="convnet",
        arguments={"width": 4},
        method="fedavg",
        batch=2,
        training=training,
        threat="B",
        grant=("labels",),
    ).seen
    assert seen.labels is not None
    assert count_steps(seen) == 4
    model = build(seen.model, seen.before)
    guesses = guess_training(seen, model, seen.labels, GRID, noise())
    assert {g.training.steps for g in guesses} == {4}
    with pytest.raises(AttackError, match="say 4 local steps"):
        guess_training(seen, model, seen.labels, [LocalTraining()], noise())
    assert count_steps(replace(seen, shared=seen.shared[:1])) is None


def test_what_cannot_be_guessed(intercept: Intercept) -> None:
    seen = intercept(network="small_cnn", method="fedavg", threat="A").seen
    model, labels = build(seen.model, seen.before), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(KnowledgeError, match="threat model B"):
        guess_training(seen, model, labels, GRID, noise())
    gradient = intercept(network="small_cnn", threat="B").seen
    with pytest.raises(AttackError, match="a gradient is one step"):
        guess_training(gradient, model, labels, GRID, noise())


def test_distances() -> None:
    shared = {"w": torch.tensor([3.0, -4.0])}
    assert unlike({"w": torch.tensor([-4.0, 3.0])}, shared) == pytest.approx(0)
    assert unlike({"w": torch.tensor([6.0, 8.0])}, shared) == pytest.approx(math.log(2))
    assert unlike({"w": torch.tensor([math.nan, 8.0])}, shared) == math.inf
    assert relative_error({"w": torch.tensor([0.0, 0.0])}, shared) == pytest.approx(1)
    assert relative_error(shared, shared) == 0
    assert relative_error({"w": torch.tensor([math.inf, 0.0])}, shared) == math.inf
