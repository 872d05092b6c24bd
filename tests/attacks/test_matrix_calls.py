"""Matrices that a network multiplies by itself are read as those of layers are."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.adaptive.estimation import noise_scale
from fedaudit.attacks.evidence.layer_inputs import COLUMNS, InputReader

sys.path.insert(0, str(Path(__file__).parent))
from layered_networks import drawn, gradients

SHAPE = (3, 32, 32)


class Tokens(nn.Module):
    """A network of patches, whose matrices are `[in, out]` and multiplied from the right."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.first = nn.Parameter(torch.randn(192, 96) / 192**0.5)
        self.shift = nn.Parameter(torch.zeros(96))
        self.second = nn.Parameter(torch.randn(1536, 7) / 1536**0.5)

    def forward(self, images: Tensor) -> Tensor:
        patches = F.unfold(images, 8, stride=8).mT
        if self.way == "linear":
            inner = F.linear(patches, self.first.T, self.shift)
            return F.linear(torch.sigmoid(inner).flatten(1), self.second.T)
        if self.way == "addmm":
            rows = torch.addmm(self.shift, patches.flatten(0, 1), self.first)
            return torch.mm(torch.sigmoid(rows).view(len(images), -1), self.second)
        if self.way == "einsum":
            inner = torch.einsum("bnd,dh->bnh", patches, self.first) + self.shift
            return torch.einsum("dk, bd -> bk", self.second, torch.sigmoid(inner).flatten(1))
        inner = patches @ self.first + self.shift
        return torch.matmul(torch.sigmoid(inner).flatten(1), self.second)


class Rows(nn.Module):
    """The same, whose matrices are `[out, in]`, transposed first or in an `einsum`."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        same = Tokens("linear")
        self.first, self.shift = nn.Parameter(same.first.detach().T.clone()), same.shift
        self.second = nn.Parameter(same.second.detach().T.clone())

    def forward(self, images: Tensor) -> Tensor:
        maps = F.unfold(images, 8, stride=8)
        if self.way == "einsum":
            inner = torch.einsum("bdn,hd->bnh", maps, self.first) + self.shift
            return torch.einsum("...d,kd->...k", torch.sigmoid(inner).flatten(1), self.second)
        inner = maps.mT @ self.first.T + self.shift
        return torch.sigmoid(inner).flatten(1) @ self.second.mT


class Layers(nn.Module):
    """The same in layers."""

    def __init__(self) -> None:
        super().__init__()
        same = Tokens("linear")
        self.first, self.second = nn.Linear(192, 96), nn.Linear(1536, 7, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(same.first.T)
            self.first.bias.copy_(same.shift)
            self.second.weight.copy_(same.second.T)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.first(F.unfold(images, 8, stride=8).mT)
        scores: Tensor = self.second(torch.sigmoid(inner).flatten(1))
        return scores


def rebuilt(model: nn.Module) -> Tensor:
    """By one step of a search, of one image."""
    settings = {"steps": 1, "polish": 0, "mends": 0}
    update = gradients(model.eval(), drawn(1))
    return fedaudit.attack(model, update, image_shape=SHAPE, settings=settings).images


@pytest.mark.parametrize("way", ["matmul", "addmm", "einsum", "linear"])
def test_what_enters_them_is_read(way: str) -> None:
    model = Tokens(way).eval()
    reader = InputReader(model, SHAPE, 1)
    positions = reader.positions()
    assert {name: (p.positions, p.width) for name, p in positions.items()} == {
        "first": (16, 192),
        "second": (1, 1536),
    }
    assert reader.sides("first") == (96, 192)
    assert reader.layers["first"] == [COLUMNS]
    rows = reader.rows(["first"], drawn(1))["first"]
    torch.testing.assert_close(rows, F.unfold(drawn(1), 8, stride=8).mT)


@pytest.mark.parametrize("network", [Tokens("matmul"), Rows("matmul"), Rows("einsum")])
def test_an_attack_goes_by_them_as_by_layers(network: nn.Module) -> None:
    torch.testing.assert_close(rebuilt(network), rebuilt(Layers()), atol=1e-3, rtol=0)


def test_a_head_that_is_a_bare_parameter_of_rows_costs_no_listening() -> None:
    """As margin heads are: every step of a search would pay for it."""

    class Cosines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.weight = nn.Linear(3072, 8), nn.Parameter(torch.randn(7, 8))

        def forward(self, images: Tensor) -> Tensor:
            return F.linear(F.normalize(self.body(images.flatten(1))), F.normalize(self.weight))

    reader, listens = InputReader(Cosines().eval(), SHAPE, 1), []
    for look in (lambda: None, reader.positions):
        look()
        listens.append(reader._multiplies)
    assert listens == [True, False]
    assert not InputReader(Layers(), SHAPE, 1)._multiplies


def test_their_gradients_are_not_taken_for_noise() -> None:
    """Of a matrix [in, out] a row is of one input: rows are equally long where inputs are."""
    update = gradients(Tokens("matmul").eval(), drawn(1))
    assert noise_scale(update) is None
    noisy = {n: g + g.std() * torch.randn(g.shape) for n, g in update.items()}
    found = noise_scale(noisy)
    assert found is not None
    assert found == pytest.approx(min(float(g.std()) for g in update.values()), rel=0.5)
