"""Settings of few values, and lists: refused where they are set, with what they must be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedaudit.attacks.malicious.block import with_block
from fedaudit.attacks.malicious.fishing import Fishing
from fedaudit.attacks.malicious.imprint import Imprint
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.pixels import Pixels
from fedaudit.attacks.templates.linking import link
from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.registry import create
from fedaudit.defenses.ats import ATS
from fedaudit.defenses.local_layers import LocalLayers
from fedaudit.defenses.oasis import OASIS
from fedaudit.defenses.private_projector import PrivateProjector
from fedaudit.federation.private_projector_method import PrivateProjectorMethod


def stage(**settings: Any) -> Stage:
    return Stage(varies=Pixels(), steps=1, lr=1.0, **settings)


def attack(**settings: Any) -> MatchingAttack:
    return MatchingAttack(stages=(stage(),), **settings)


def linked(**settings: Any) -> Any:
    return link(torch.rand(2, 4), torch.rand(2, 4), **settings)


def block(**settings: Any) -> Any:
    return with_block(network="face", arguments={}, rows=4, classes=2, image_size=32, **settings)


@pytest.mark.parametrize(
    ("make", "setting", "value", "words"),
    [
        (Pixels, "start", "random", "anew, gray, last, mended, normal, previous, uniform"),
        (
            Pixels,
            "start",
            "grey",
            "did you mean 'gray'.*anew, gray, last, mended, normal, previous",
        ),
        (stage, "optimizer", "sgd", "choose from adam, cma_es, gauss_newton, lbfgs, signed_adam"),
        (stage, "optimizer", "lbgfs", "did you mean 'lbfgs'.*adam, cma_es, gauss_newton"),
        (stage, "schedule", "cosin", "did you mean 'cosine'.*cosine, exponential, gifd, step"),
        (stage, "match", "map", "did you mean 'maps'.*maps, spans, update"),
        (attack, "labels", "hard", "inferred, soft"),
        (attack, "precision", "float16", "auto, bfloat16, float32, float64"),
        (attack, "local_steps", "replays", "did you mean 'replay'.*path, replay, start"),
        (attack, "unknown", "guess", "did you mean 'guessed'.*guessed, joint, learned"),
        (attack, "distance", "cosin", "did you mean 'cosine'"),
        (inverting_gradients, "schedule", "steps", "did you mean 'step'"),
        (linked, "drift", "rotated", "did you mean 'rotate'.*center, none, rotate"),
        (block, "activation", "gelu", "did you mean 'relu'.*relu, step"),
        (Imprint, "mode", "separated", "did you mean 'separate'.*cumulative, separate"),
        (Fishing, "mode", "features", "did you mean 'feature'.*class, feature"),
    ],
)
def test_another_value_is_refused(
    make: Callable[..., Any], setting: str, value: str, words: str
) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {setting} '{value}': .*{words}"):
        make(**{setting: value})


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (attack, "layers"),
        (subspace_matching, "layers"),
        (LocalLayers, "private"),
        (PrivateProjector, "private"),
        (PrivateProjectorMethod, "private"),
        (ATS, "policies"),
        (OASIS, "flips"),
    ],
)
def test_one_text_is_no_list(make: Callable[..., Any], setting: str) -> None:
    """Python makes a list of its letters, and LocalLayers kept all layers that begin with one."""
    with pytest.raises(ConfigError, match=f'{setting} must be a list, each text, not "conv"'):
        make(**{setting: "conv"})


def test_layers_may_be_a_list() -> None:
    assert subspace_matching(layers=["conv"]).layers == ("conv",)  # type: ignore[arg-type]


def test_a_study_is_told_the_values_as_well() -> None:
    with pytest.raises(ConfigError, match='precision must be one of "auto", "float64"'):
        create("attacks", "inverting_gradients", {"precision": "float16"})
