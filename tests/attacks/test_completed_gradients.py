"""Whole gradients of layers, out of the smaller of their numbers."""

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.completed_gradients import complete, known_per_unknown
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.layer_unfolding import matrices_of, rows_of

LAYERS = {
    "convolution": (nn.Conv2d(16, 96, 3, padding=1, bias=False), (2, 16, 4, 4)),
    "steps": (nn.Conv2d(8, 48, 3, stride=2, padding=1, bias=False), (2, 8, 4, 4)),
    "tokens": (nn.Linear(64, 48, bias=False), (2, 4, 64)),
}


def gradient_of(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Of some loss behind the layer."""
    outputs = layer(inputs)
    upstream = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    weight = layer.get_parameter("weight")
    return torch.autograd.grad((outputs * upstream).sum(), weight)[0].double()


def smaller_part(gradient: Tensor, share: float, error: float = 1e-3) -> KnownEntries:
    """The smallest of its numbers, each off by so much of itself."""
    is_known = gradient.abs() <= gradient.abs().flatten().quantile(share)
    noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2)).double()
    numbers = gradient * (1 + error * noise) * is_known
    errors = (error * numbers.abs()).where(is_known, torch.tensor(torch.inf).double())
    return KnownEntries(numbers, errors)


def seen(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Inputs of the layer, and noise of their size."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_follows_from_its_smaller_numbers(name: str) -> None:
    layer, shape = LAYERS[name]
    inputs, noise = seen(layer, shape)
    gradient = gradient_of(layer, inputs)
    known = smaller_part(gradient, 0.7)
    nearly = 0.7 * inputs + 0.3 * noise
    assert known_per_unknown(known, layer, nearly) > 1.5
    positions = layer(inputs).numel() // layer.get_parameter("weight").shape[0]
    whole = complete(
        known, layer, nearly, rank=positions, steps=30, generator=torch.Generator().manual_seed(0)
    )
    assert whole is not None
    assert whole.missed < 0.02
    rows = torch.linalg.qr(rows_of(layer, inputs)[0].double().T).Q
    told = matrices_of(layer, whole.gradient)[0]
    inside = told @ rows
    assert float(inside.square().sum() / told.square().sum()) > 0.999


def test_what_does_not_follow_is_not_believed() -> None:
    layer, shape = LAYERS["convolution"]
    inputs, noise = seen(layer, shape)
    few = smaller_part(gradient_of(layer, inputs), 0.2)
    assert known_per_unknown(few, layer, noise) < 1
    generator = torch.Generator().manual_seed(0)
    assert complete(few, layer, noise, rank=32, steps=30, generator=generator) is None
    anything = torch.randn(96, 16, 3, 3, generator=generator).double()
    assert (
        complete(smaller_part(anything, 0.7), layer, noise, rank=32, steps=30, generator=generator)
        is None
    )


def test_nothing_follows_from_nothing() -> None:
    layer, shape = LAYERS["convolution"]
    inputs, _ = seen(layer, shape)
    nothing = KnownEntries(
        torch.zeros(96, 16, 3, 3).double(), torch.full((96, 16, 3, 3), torch.inf)
    )
    generator = torch.Generator().manual_seed(0)
    assert complete(nothing, layer, inputs, rank=32, steps=30, generator=generator) is None
    dead = smaller_part(gradient_of(layer, inputs), 0.7)
    assert complete(dead, layer, torch.zeros(shape), rank=32, steps=30, generator=generator) is None
