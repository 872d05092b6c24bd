"""Mistaken arguments of `fedaudit.attack`: each says what is wrong, and what to give instead."""

import sys
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.closed_form.analytic import Analytic
from fedaudit.core.errors import (
    AttackError,
    ConfigError,
    KnowledgeError,
    UnknownNameError,
    UsageError,
)

sys.path.insert(0, str(Path(__file__).parent))
from plain_networks import LABELS, SHAPE, cnn, drawn, gradient, mlp


def good() -> dict[str, Any]:
    model = mlp()
    update = gradient(model, drawn(model), LABELS)
    return {"model": model, "update": update, "name": "analytic", "image_shape": SHAPE}


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"name": "analitic"}, UnknownNameError, "did you mean 'analytic'"),
        ({"settings": {"tolerence": 1}}, UnknownNameError, "did you mean 'tolerance'"),
        ({"settings": {"tolerance": "x"}}, ConfigError, "tolerance must be a number"),
        ({"name": Analytic(), "settings": {"tolerance": 1}}, UsageError, "go with an attack's n"),
        ({"name": "imprint"}, KnowledgeError, "chooses what the server sends"),
        ({"name": "template_inversion"}, KnowledgeError, "not a model update"),
        ({"image_shape": None}, UsageError, "image_shape is missing"),
        ({"image_shape": (8, 8)}, UsageError, r"it is \(C, H, W\)"),
        ({"image_shape": (3, 9, 9)}, UsageError, "images"),
        ({"images": 0}, UsageError, "one image or more"),
        ({"kind": "weights"}, UsageError, 'a "gradient" or a "delta"'),
        ({"update": {}}, UsageError, "the update is empty"),
        ({"labels": [1, 2]}, ConfigError, "one of each of 1"),
        ({"labels": [10]}, ConfigError, "the model has 10 classes"),
        ({"defense": ["dpsgd"]}, UsageError, "give defenses"),
        ({"mean": [0.5], "std": [0.0]}, UsageError, "std above 0"),
        ({"unshared": ["3.weight"]}, UsageError, "take it off unshared"),
        ({"unshared": ["3.wait"]}, UsageError, "did you mean '3.weight'"),
        ({"model": nn.Flatten()}, UsageError, "no parameters"),
        ({"model": nn.Flatten}, UsageError, "a class: give an instance"),
        ({"model": {}}, UsageError, "dict: give the torch.nn.Module"),
        ({"update": [torch.zeros(10)]}, UsageError, r"list: it maps .* dict\(zip"),
        ({"images": torch.zeros(1, *SHAPE)}, UsageError, "Tensor: it is how many"),
        ({"images": 1.0}, UsageError, "float: it is how many"),
        ({"labels": [1.5]}, ConfigError, "whole numbers"),
    ],
)
def test_bad_arguments_are_refused(wrong: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        fedaudit.attack(**{**good(), **wrong})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda u: {"3.wait": u.pop("3.weight"), **u}, "no parameter '3.wait': did you mean '3.w"),
        (lambda u: {f"module.{n}": v for n, v in u.items()}, "begin with 'module': take that off"),
        (lambda u: {n: v for n, v in u.items() if n != "3.bias"}, "lacks '3.bias'. If that stays"),
        (lambda u: {**u, "3.bias": torch.zeros(11)}, r"is \(11,\), and the model's \(10,\)"),
        (lambda u: {**u, "3.bias": u["3.bias"] * torch.nan}, "not finite"),
        (lambda u: {**u, "3.bias": [0.0] * 10}, "is list, no tensor"),
        (lambda u: {**u, "3.bias": u["3.bias"].to(torch.int8)}, "is of int8: give the numbers"),
        (lambda u: {"model": u, "epoch": 3}, r"it is a mapping, .* give update\['model'\]"),
    ],
)
def test_an_update_that_does_not_fit_the_model_is_refused(change: Any, message: str) -> None:
    arguments = good()
    arguments["update"] = change(arguments["update"])
    with pytest.raises(UsageError, match=message):
        fedaudit.attack(**arguments)


def test_a_buffer_in_the_update_is_told_where_it_belongs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    update = gradient(model, torch.rand(2, *SHAPE), torch.tensor([1, 2]))
    update["1.running_mean"] = torch.zeros(4)
    with pytest.raises(UsageError, match=r"a buffer, which goes into buffers=\{…\}"):
        fedaudit.attack(model, update, images=2, image_shape=SHAPE)


def test_one_score_an_image_needs_a_loss_of_its_own() -> None:
    """Cross-entropy of one class is 0 whatever it is: attacks would end at once, with nothing."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    photo = drawn(model)

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(scores[:, 0], labels.to(scores))

    values = torch.autograd.grad(loss(model(photo), torch.tensor([0])), list(model.parameters()))
    update = dict(zip(dict(model.named_parameters()), values, strict=True))
    with pytest.raises(UsageError, match=r"one score an image, .* criterion"):
        fedaudit.attack(model, update, "analytic", image_shape=SHAPE)
    model.criterion = loss  # type: ignore[assignment]
    rebuilt = fedaudit.attack(model, update, "analytic", image_shape=SHAPE)
    torch.testing.assert_close(rebuilt.images, photo, atol=1e-4, rtol=0)


def test_scores_that_are_probabilities_are_noticed() -> None:
    model = nn.Sequential(mlp(), nn.Softmax(1))
    photo = drawn(model)
    with pytest.warns(UserWarning, match="scores are probabilities"):
        fedaudit.attack(model, gradient(model, photo, LABELS), "analytic", image_shape=SHAPE)


class Random(nn.Module):
    """Draws in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = nn.functional.dropout(self.body(images), training=True)
        scores: Tensor = self.head(maps.mean((2, 3)))
        return scores


class Bare(nn.Module):
    """Has no layer whose inputs its gradients span."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(*SHAPE))

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(images * self.scale).mean((2, 3)).repeat(1, 4)[:, :10]


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (Random(), UsageError, "layer Random gives other numbers"),
        (Bare(), AttackError, r"no layer of the network \(of 'scale'\)"),
    ],
    ids=["random", "bare"],
)
def test_a_network_that_cannot_be_read_is_told(model: nn.Module, kind: type, message: str) -> None:
    update = gradient(model, torch.rand(1, *SHAPE), LABELS)
    with pytest.raises(kind, match=message):
        fedaudit.attack(model, update, "subspace_matching", image_shape=SHAPE)


class Frozen(nn.Module):
    """A backbone that is frozen in the forward pass, too, and a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(72, 10)
        self.body.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(images).relu().detach().flatten(1))
        return scores


@pytest.mark.filterwarnings("ignore:second derivatives")
@pytest.mark.parametrize("attack", ["subspace_matching", "inverting_gradients", "idlg"])
def test_a_search_is_not_begun_where_no_slope_reaches_the_images(attack: str) -> None:
    """Priors alone would draw them, or torch raise an error of its own."""
    model = Frozen()
    loss = nn.functional.cross_entropy(model(torch.rand(1, *SHAPE)), LABELS)
    slopes = torch.autograd.grad(loss, list(model.head.parameters()))
    update = {"head.weight": slopes[0], "head.bias": slopes[1]}
    with pytest.raises(AttackError, match=r"cuts its scores off .* requires_grad = False"):
        fedaudit.attack(model, update, attack, image_shape=SHAPE, settings={"steps": 1})


@pytest.mark.parametrize("attack", ["subspace_matching", "inverting_gradients"])
def test_an_update_of_zeros_is_refused(attack: str) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in cnn().named_parameters()}
    with pytest.raises(AttackError, match="zero everywhere"):
        fedaudit.attack(cnn(), zeros, attack, image_shape=SHAPE, labels=LABELS)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    arguments = good()
    arguments["model"].kept = Lock()
    with pytest.raises(UsageError, match="cannot be copied"):
        fedaudit.attack(**arguments)
