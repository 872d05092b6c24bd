"""The distance of spans: its slope is exact, and it is zero for the truth alone."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import (
    LINE,
    LayerSpan,
    _cholesky_factor,
    _lower_gram,
    span_distance,
)
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


@pytest.mark.parametrize("count", [5, LINE, 2 * LINE])
def test_cholesky_factors_are_those_of_the_ridged_gram_matrix(count: int) -> None:
    """Also of sizes that get some rows more, and beside a matrix that has none without a ridge."""
    rows = torch.randn(2, count, 300, generator=torch.Generator().manual_seed(0)).double()
    rows[1, 1] = rows[1, 0]
    gram = rows @ rows.mT
    gram[1] += torch.diag(torch.full((count,), -1e-9)) * gram[1].diagonal().mean()
    factor = _cholesky_factor(gram.clone())
    assert factor.shape == gram.shape
    left = (factor @ factor.mT - gram).diagonal(dim1=1, dim2=2) / gram.diagonal(dim1=1, dim2=2)
    assert float(left[0].abs().max()) < 1e-10
    assert 1e-9 < float(left[1].mean()) < 1e-7
    torch.testing.assert_close(factor @ factor.mT, gram)


def test_the_mean_over_layers_is_zero_for_the_truth_alone() -> None:
    _, reader, spans = spans_of("tokens", count=1)
    assert float(span_distance(reader, spans, drawn(1)).detach()) < 1e-4
    assert float(span_distance(reader, spans, drawn(1, seed=2)).detach()) > 0.1


@pytest.mark.parametrize(("positions", "width"), [(3, 12), (20, 48)])
def test_layers_of_one_shape_are_solved_together_as_each_by_itself(
    positions: int, width: int
) -> None:
    """Of unlike certainty and trust, and with unlike numbers of directions."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(2), *(nn.Linear(width, width) for _ in range(3)))
    reader = InputReader(model, (positions, 1, width), 2)
    spans = []
    for number, directions in enumerate((2, 7, 8)):
        basis = torch.linalg.qr(torch.randn(1, width, directions).double()).Q.mT
        weights = torch.rand(1, directions).double()
        span = LayerSpan(f"{number + 1}.weight", positions, basis, weights, True, False, 0.0)
        spans.append(replace(span, trust=1 + 0.5 * number))
    images = torch.rand(2, positions, 1, width).requires_grad_()
    together = span_distance(reader, spans, images)
    uses = reader.inputs([span.name for span in spans], images)
    each = [s.trust * s.distance(s.rows(uses[s.name], 2)) for s in spans]
    alone = torch.stack(each).mean()
    assert float(together.detach()) == pytest.approx(float(alone.detach()), rel=1e-6)
    slopes = [torch.autograd.grad(of, images, retain_graph=True)[0] for of in (together, alone)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-7)
    assert [len(stack) for span in spans for stack in span.stacks] == [1 if positions > 16 else 2]
    with torch.no_grad():
        assert span_distance(reader, spans, images) == together


def test_slopes_are_in_single_precision_and_distances_are_exact() -> None:
    """Of rows so nearly dependent that a distance from products in single precision is off."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1, 1, 40, generator=generator)
    rows = common + 1e-3 * torch.randn(1, 6, 40, generator=generator)
    basis = torch.linalg.qr(rows[0].double().T).Q.mT[None]
    span = LayerSpan("w", 6, basis, torch.ones(1, 6).double(), True, True, 0.0)
    moved = rows + 1e-5 * torch.randn(1, 6, 40, generator=generator)
    leaves = [moved.clone().requires_grad_(), moved.double().requires_grad_()]
    apart = [span.distance(leaf) for leaf in leaves]
    assert float(apart[0].detach()) == float(apart[1].detach())
    single, double = (torch.autograd.grad(*pair)[0] for pair in zip(apart, leaves, strict=True))
    assert single.dtype == torch.float32
    alike = nn.functional.cosine_similarity(single.double().flatten(), double.flatten(), 0)
    assert float(alike) > 0.999


@pytest.mark.parametrize("by_columns", [False, True])
def test_slopes_lie_in_memory_as_rows_do(by_columns: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(1, 5, 9, generator=generator)
    rows = (rows.mT.contiguous().mT if by_columns else rows).requires_grad_()
    basis = torch.linalg.qr(torch.rand(9, 3, generator=generator).double()).Q.mT[None]
    weights = torch.ones(1, 3, dtype=torch.float64)
    span = LayerSpan("w", 5, basis, weights, whole=False, full=False, floor=0.0)
    (slope,) = torch.autograd.grad(span.distance(rows), rows)
    assert slope.stride() == rows.stride()


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 4, 1), nn.Conv2d(64, 4, 3)])
@pytest.mark.parametrize("count", [1, 2])
def test_the_slope_is_exact_through_batch_norm(layer: nn.Module, count: int) -> None:
    """Down to the images, in whichever order of memory the rows' slopes are."""
    generator = torch.Generator().manual_seed(0)
    before = (nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64), nn.Softplus())
    model = nn.Sequential(*before, layer, nn.Flatten(), nn.LazyLinear(2)).double().eval()
    images = torch.rand(count, 3, 6, 7, generator=generator).double()
    model(images)
    reader = InputReader(model, (3, 6, 7), count)
    with torch.no_grad():
        rows = reader.rows(["3.weight"], images)["3.weight"]
    positions, width = rows.shape[1] // count, rows.shape[2]
    basis = torch.linalg.qr(torch.randn(width, 3, generator=generator).double()).Q.mT[None]
    weights = torch.ones(1, 3, dtype=torch.float64)
    span = LayerSpan("3.weight", positions, basis, weights, whole=False, full=False, floor=0.0)
    images.requires_grad_()
    (slope,) = torch.autograd.grad(span_distance(reader, [span], images), images)
    step = 1e-6 * slope / slope.norm()
    with torch.no_grad():
        ends = [span_distance(reader, [span], images + sign * step) for sign in (1, -1)]
    assert float(ends[0] - ends[1]) / 2e-6 == pytest.approx(float(slope.norm()), rel=1e-4)
