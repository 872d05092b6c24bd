"""What CENSOR leaves: the label shows in lengths, and a search knows how far it can go."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.orthogonalized import FEWEST, equations, label_of
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.generators.face_generator import FaceGenerator, FittedGenerator
from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.search.scene import fit_generator
from fedaudit.attacks.search.stage import Stage, within_range
from fedaudit.attacks.search.variables.latents import Latent
from fedaudit.core.capture import Capture
from fedaudit.core.registry import create

Intercept = Callable[..., Capture]


def evidence_of(rounds: int) -> Reading:
    """Of a network with parameters of 30 and 1,000 numbers, and of one number."""
    orthogonalized = {
        "a": torch.ones(rounds, 30),
        "b": torch.ones(rounds, 1000),
        "c": torch.ones(rounds),
    }
    return Reading(
        model=torch.nn.Identity(),
        target={n: v[0] for n, v in orthogonalized.items()},
        count=1,
        shape=(1, 8, 8),
        labels=None,
        grayscale=False,
        first_fc=None,
        every_round=orthogonalized,
    )


def test_right_angles_of_a_small_parameter_run_out() -> None:
    assert equations(evidence_of(1).every_round) == 4
    assert equations(evidence_of(40).every_round) == (29 + 1) + (40 + 1)


def led_by(stages: Sequence[Stage], rounds: int) -> tuple[Stage, ...]:
    reading = evidence_of(rounds)
    return within_range(stages, equations(reading.every_round), reading)


def test_pixels_are_searched_once_there_are_as_many_equations() -> None:
    stages = gan_inversion(latent_steps=10, stage_steps=30, pixel_steps=80).stages
    few = led_by(stages, 1)
    assert [type(stage.varies) for stage in few] == [Latent]
    assert few[0].steps == 120
    assert led_by(stages, 34) == stages
    pixels = inverting_gradients().stages
    assert led_by(pixels, 1) == pixels


@pytest.mark.slow  # a long search
def test_the_label_shows_in_lengths_and_right_angles(intercept: Intercept) -> None:
    """By chance, one photo in as many as there are people."""
    right = 0
    for target in range(2):
        captured = intercept(target=target, defense="censor", settings={"trials": 1}, rounds_seen=8)
        assert captured.secret is not None
        evidence = gather(captured.seen)
        prior = fit_generator(FaceGenerator(), evidence)

        def faces(number: int, prior: FittedGenerator = prior) -> Tensor:
            assert number >= FEWEST
            return prior.images(prior.sample(FEWEST, torch.Generator().manual_seed(0)))

        labels = label_of(evidence, faces, True)
        assert labels is not None
        assert label_of(replace(evidence, labels=labels), faces, True) is None
        right += int(labels[0] == captured.secret.labels[0])
    assert right == 2


@pytest.mark.slow
def test_the_attack_takes_it_into_account(intercept: Intercept) -> None:
    steps = {"candidates": 2, "latent_steps": 2, "stage_steps": 1, "pixel_steps": 1}
    attack = create("attacks", "gan_inversion", steps)
    captured = intercept(defense="censor", network="lenet", grant=("labels",))
    made = attack(captured.seen, generator=torch.Generator().manual_seed(0))
    assert made.adaptive == "known"
    assert made.iterations == 4
    unread = attack(replace(captured.seen, labels=None), generator=torch.Generator().manual_seed(0))
    assert unread.labels.shape == (1,)
    assert 0 <= int(unread.labels[0]) < (captured.seen.num_classes or 0)
