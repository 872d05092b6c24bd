"""Convolutions by weights that a network computes: standardized, normalized, or called as they are.

What a client sends of them is not made of patches alone, and is brought into that form.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn
from torch.nn.utils import parametrizations

sys.path.insert(0, str(Path(__file__).parent))
from layered_networks import drawn, gradients

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import span_distances
from fedaudit.attacks.evidence.layer_unfolding import is_centered
from fedaudit.attacks.evidence.own_directions import own_directions
from fedaudit.attacks.evidence.span_spectrum import find_spans

SHAPE = (3, 32, 32)
EXACT = 1e-8
"""Of squared sines that are rounding; where nothing is put back, they are 1e-3."""


class WSConv2d(nn.Conv2d):
    """As people write it themselves, after the paper's code."""

    def forward(self, input: Tensor) -> Tensor:
        mean = self.weight.mean(1, keepdim=True).mean(2, keepdim=True).mean(3, keepdim=True)
        weight = self.weight - mean
        std = weight.view(len(weight), -1).std(1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(
            input, weight / std, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class Bare(nn.Module):
    """A convolution by a parameter, without a layer."""

    def __init__(self, channels: int, rows: int, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(rows, channels, size, size) / 20)
        self.given = (None, stride, padding)

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.kernel, *self.given)


Convolution = Callable[[int, int, int, int, int], nn.Module]
"""From channels, rows, size of the kernel, stride and padding."""
MADE: dict[str, Convolution] = {
    "no gain": lambda *sizes: StdConv2d(*sizes, eps=1e-8),
    "gain": ScaledStdConv2d,
    "people's own": WSConv2d,
    "weight norm": lambda *sizes: parametrizations.weight_norm(nn.Conv2d(*sizes)),
    "older weight norm": lambda *sizes: nn.utils.weight_norm(nn.Conv2d(*sizes)),
    "no layer": Bare,
}


def network(make: Convolution) -> nn.Module:
    """The first layer has fewer rows than positions, the second more."""
    torch.manual_seed(0)
    return nn.Sequential(
        make(3, 24, 8, 4, 2),
        nn.Sigmoid(),
        make(24, 48, 3, 2, 1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(768, 7),
    ).eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", MADE)
def test_true_images_meet_their_spans_and_others_do_not(kind: str) -> None:
    model, images = network(MADE[kind]), drawn(1)
    update = gradients(model, images)
    reader = InputReader(model, SHAPE, 1)
    spans = find_spans(reader, update, clean=True)
    assert [(span.positions, span.whole) for span in spans] == [(64, False), (16, True), (1, True)]
    assert reader.unread(list(update)) == []
    with torch.no_grad():
        true, other = (span_distances(reader, spans, one) for one in (images, drawn(1, seed=1)))
    assert bool((other[:2] > 0.05).all())
    assert bool((true[1:] < EXACT).all())
    # Without a gain each row's own part is known by what a small number leaves of it.
    assert float(true[0]) < (1e-4 if kind in ("no gain", "people's own") else EXACT)


@pytest.mark.parametrize("kind", MADE)
def test_their_means_are_open_where_a_weight_is_standardized(kind: str) -> None:
    reader = InputReader(network(MADE[kind]), SHAPE, 1)
    widths = [position.width for position in reader.positions().values()]
    centered = kind in ("no gain", "gain", "people's own")
    assert widths == [192 - centered, 216 - centered, 768]
    assert [is_centered(reader.layers[name][0]) for name in reader.positions()] == [
        centered,
        centered,
        False,
    ]


@pytest.mark.parametrize("layer", [StdConv2dSame, ScaledStdConv2dSame])
def test_what_enters_behind_padding_of_their_own(layer: type[nn.Conv2d]) -> None:
    model = network(lambda channels, rows, size, stride, _: layer(channels, rows, size, stride))
    reader = InputReader(model, SHAPE, 1)
    spans = find_spans(reader, gradients(model, drawn(1)), clean=True)
    with torch.no_grad():
        assert float(span_distances(reader, spans, drawn(1))[1]) < EXACT


@pytest.mark.parametrize("kind", ["people's own", "no layer"])
def test_what_enters_patches_beside_each_other(kind: str) -> None:
    """These are embedded by a product, and not by a convolution."""
    torch.manual_seed(0)
    first = MADE[kind](3, 24, 8, 8, 0)
    model = nn.Sequential(first, nn.Sigmoid(), nn.Flatten(), nn.Linear(384, 7)).eval()
    usual = F.conv2d, torch.conv2d
    reader = InputReader(model, SHAPE, 1)
    spans = find_spans(reader, gradients(model, drawn(1)), clean=True)
    with torch.no_grad():
        assert float(span_distances(reader, spans, drawn(1))[0]) < EXACT
    assert len(spans) == 2
    assert (F.conv2d, torch.conv2d) == usual


def test_a_gain_that_was_not_shared_is_done_without() -> None:
    model, images = network(MADE["gain"]), drawn(1)
    update = {n: g for n, g in gradients(model, images).items() if not n.endswith("gain")}
    reader = InputReader(model, SHAPE, 1)
    spans = find_spans(reader, update, clean=True)
    with torch.no_grad():
        assert float(span_distances(reader, spans, images)[1]) < EXACT


def test_noise_is_not_taken_for_a_trace_of_the_rows_own_direction() -> None:
    """Divided by a small number it would outgrow the rows."""
    model, images = network(MADE["no gain"]), drawn(1)
    update, reader = gradients(model, images), InputReader(model, SHAPE, 1)
    std = 0.01 * float(update["0.weight"].std())
    noisy = {n: g + std * torch.randn_like(g) for n, g in update.items()}
    sent = noisy["0.weight"].double()
    reader.positions()
    rows, error = reader.gradient_of("0.weight", noisy, error=0.0, noise=std)
    assert error is not None
    assert float((rows - sent).norm()) < 0.01 * float(sent.norm())
    assert bool((error > 1e-3 * sent.flatten(1).norm(dim=1)).all())


def test_own_directions_are_those_that_make_the_rank_low() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, *sides, generator=generator) for sides in ((40, 9), (9, 60)))
    low = left.double() @ right.double()
    along = F.normalize(torch.randn(2, 40, 60, generator=generator), dim=2).double()
    taken = along * torch.randn(2, 40, 1, generator=generator) * 0.3
    torch.testing.assert_close(own_directions(low - taken, along, 9), taken)
