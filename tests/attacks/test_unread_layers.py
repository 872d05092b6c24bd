"""Layers that do something else with their weights: subspace matching says that it cannot."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import fedaudit
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.core.errors import AttackError

sys.path.insert(0, str(Path(__file__).parent))
from layered_networks import NETWORKS, drawn, gradients


class Rows(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(96, 48, batch_first=True), nn.Linear(48, 7)

    def forward(self, images: Tensor) -> Tensor:
        rows, _ = self.rows(images.transpose(1, 2).flatten(2))
        scores: Tensor = self.head(rows[:, -1])
        return scores


class Summed(nn.Module):
    """A matrix that is applied entry by entry."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(3072, 7) * 0.02)

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1)[:, :, None] * self.matrix).sum(1)


def stack(first: nn.Module) -> nn.Module:
    second = nn.Conv2d(16, 32, 3, 2, 1)
    return nn.Sequential(first, nn.Sigmoid(), second, nn.Flatten(), nn.Linear(2048, 7))


@pytest.mark.parametrize(
    ("make", "unread"),
    [
        (
            lambda: stack(parametrizations.spectral_norm(nn.Conv2d(3, 16, 3, 2, 1))),
            ["0.parametrizations.weight.original"],
        ),
        (Rows, ["rows.weight_hh_l0", "rows.weight_ih_l0"]),
        *((make, []) for make in NETWORKS.values()),
    ],
)
def test_which_they_are(make: Callable[[], nn.Module], unread: list[str]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    reader = InputReader(model, (3, 32, 32), 1)
    reader.positions()
    update = gradients(model, drawn(1))
    assert reader.unread(list(update)) == unread
    assert reader.unread([]) == []


def test_the_result_says_so() -> None:
    torch.manual_seed(0)
    settings = {"steps": 1, "polish": 0, "mends": 0}
    model, shape = stack(parametrizations.spectral_norm(nn.Conv2d(3, 16, 3, 2, 1))), (3, 32, 32)
    update = gradients(model, drawn(1))
    said = fedaudit.attack(model, update, image_shape=shape, settings=settings).unused
    assert len(said) == 1
    assert "what enters '0.parametrizations.weight.original' is not to be read" in said[0]


def test_where_there_is_nothing_else_it_is_said_what_could_be_read() -> None:
    torch.manual_seed(0)
    model = Summed()
    with pytest.raises(AttackError, match=r"\(of 'matrix'\) .* Linear, @ or einsum apply"):
        fedaudit.attack(model, gradients(model, drawn(1)), image_shape=(3, 32, 32))


def test_images_that_are_mostly_guessed_are_said_to_be() -> None:
    """A convolution of more positions than inputs, and a mean before the head: 63 equations."""
    torch.manual_seed(0)
    few = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Sigmoid(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 7)
    ).eval()
    enough = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.Sigmoid(), nn.Flatten(), nn.Linear(256, 7))
    for model, said in ((few, True), (enough.eval(), False)):
        rebuilt = fedaudit.attack(
            model,
            gradients(model, drawn(1)),
            "subspace_matching",
            image_shape=(3, 32, 32),
            settings={"steps": 2, "polish": 0, "mends": 0},
        )
        assert any("the rest is guessed" in one for one in rebuilt.unused) is said
