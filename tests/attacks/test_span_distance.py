"""The distance of spans: its slope is exact, and it is zero for the truth alone."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan, _lower_gram, span_distance
from fedaudit.attacks.evidence.layer_unfolding import rows_of

sys.path.insert(0, str(Path(__file__).parent))
from layered_networks import drawn, spans_of


def test_the_slope_of_the_distance_is_exact() -> None:
    """Against differences, with fewer directions than rows, in groups."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(2, 9, 3, generator=generator).double()).Q.mT
    weights = torch.rand(2, 3, generator=generator).double()
    span = LayerSpan("w", 5, basis, weights, whole=False, full=False, floor=0.0)
    rows = torch.randn(2, 5, 9, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(span.distance, (rows,), atol=1e-6)


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 4, 1), nn.ConvTranspose2d(6, 4, 2, 2)])
def test_slopes_through_batch_norm_are_exact(layer: nn.Module) -> None:
    """Of one image: torch's batch norm makes others of a slope in another order of memory."""
    before = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Hardtanh(0, 6, inplace=True))
    model = nn.Sequential(*before, layer, nn.Flatten(), nn.LazyLinear(2)).double().eval()
    model(drawn(1).double())
    reader = InputReader(model, (3, 32, 32), 1)
    rows = reader.inputs(["3.weight"], drawn(1).double())["3.weight"]
    weights = torch.randn(rows_of(*rows[0]).shape, generator=torch.Generator().manual_seed(0))

    def sum_of(images: Tensor) -> Tensor:
        return (reader.rows(["3.weight"], images)["3.weight"] * weights).sum()

    images = drawn(1).double().requires_grad_()
    (slope,) = torch.autograd.grad(sum_of(images), images)
    step = 1e-6 * slope / slope.norm()
    with torch.no_grad():
        rise = (sum_of(images + step) - sum_of(images - step)) / 2e-6
    assert float(rise) == pytest.approx(float(slope.norm()), rel=1e-4)


@pytest.mark.parametrize("count", [1, 3, 16, 37])
def test_of_a_gram_matrix_the_lower_triangle_is_computed(count: int) -> None:
    rows = torch.randn(2, count, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(_lower_gram(rows).tril(), (rows @ rows.mT).tril())


def test_the_mean_over_layers_is_zero_for_the_truth_alone() -> None:
    _, reader, spans = spans_of("tokens", count=1)
    assert float(span_distance(reader, spans, drawn(1)).detach()) < 1e-4
    assert float(span_distance(reader, spans, drawn(1, seed=2)).detach()) > 0.1
