"""Clipping of single images weighs those of a batch against each other; so are dummies weighed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fedaudit.attacks.adaptive.assumptions import assume
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.distances import l2_distance
from fedaudit.attacks.search.matching import Matching
from fedaudit.core.capture import Capture
from fedaudit.core.registry import create

Intercept = Callable[..., Capture]


def clipped(intercept: Intercept, network: str = "small_cnn", bound: float = 0.5) -> Capture:
    """Three photos' update under DP-SGD whose noise is next to nothing."""
    settings = {"noise_multiplier": 1e-6, "max_grad_norm": bound}
    return intercept(
        batch=3, network=network, defense="dpsgd", settings=settings, grant=("labels",)
    )


def apart(captured: Capture, told: str, functional: bool = False) -> float:
    """Relative distance of the true photos' gradient to what was sent, at the best factor."""
    assert captured.secret is not None
    seen = assume(captured.seen, "known" if told == "known" else "no")
    matching = Matching(gather(seen), use_first_fc=False)
    found, _ = matching.gradients(
        captured.secret.images, range(3), functional=functional, differentiable=False
    )
    found = tuple(value.detach() for value in found)
    sizes = [sum(float(v.square().sum()) for v in part) ** 0.5 for part in (found, matching.target)]
    one, two = (
        [v / size for v in part] for part, size in zip((found, matching.target), sizes, strict=True)
    )
    return float(l2_distance(one, two).sqrt())


@pytest.mark.parametrize("functional", [False, True])
def test_the_truth_explains_a_batch_that_was_clipped_image_by_image(
    intercept: Intercept, functional: bool
) -> None:
    captured = clipped(intercept)
    assert apart(captured, "known", functional) < 1e-3
    assert apart(captured, "blind", functional) > 10 * apart(captured, "known", functional)


def test_shares_of_a_clipped_batch_add_up(intercept: Intercept) -> None:
    """Round-wise search holds the others' shares while one image moves."""
    captured = clipped(intercept)
    assert captured.secret is not None
    matching = Matching(gather(captured.seen), use_first_fc=False)
    assert matching.separable
    images = captured.secret.images
    whole, _ = matching.gradients(images, range(3), differentiable=False)
    parts = [matching.gradients(images[i : i + 1], [i], differentiable=False)[0] for i in range(3)]
    for k, value in enumerate(whole):
        torch.testing.assert_close(sum(part[k] for part in parts), value)


def test_the_word_is_known_only_where_whole_gradients_are_matched(intercept: Intercept) -> None:
    captured = clipped(intercept)
    attack = create("attacks", "inverting_gradients", {"steps": 1, "polish": 0})
    words = [
        one(captured.seen, generator=torch.Generator().manual_seed(0)).adaptive
        for one in (attack, replace(attack, layers=("head",)))
    ]
    assert words == ["known", "no"]
