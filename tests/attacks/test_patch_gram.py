"""Inner products of patches, from those of places."""

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan, span_distance
from fedaudit.attacks.evidence.layer_unfolding import rows_of
from fedaudit.attacks.evidence.patch_gram import LEAST_CHANNELS, patch_gram
from fedaudit.attacks.evidence.span_spectrum import find_spans

CHANNELS = 2 * LEAST_CHANNELS


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(CHANNELS, 4, 3, padding=1),
        nn.Conv2d(CHANNELS, 4, 3),
        nn.Conv2d(CHANNELS, 4, 2, padding="same"),
        nn.Conv2d(CHANNELS, 4, (1, 5), padding=(2, 1)),
        nn.Conv2d(CHANNELS, 4, 3, padding=3, dilation=2),
        nn.Conv2d(CHANNELS, 4, 3, padding=1, groups=2),
        nn.Conv2d(CHANNELS, 4, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_patches_have_the_inner_products_that_places_give(
    layer: nn.Conv2d, order: torch.memory_format
) -> None:
    inputs = drawn(3, CHANNELS, 6, 5).double().to(memory_format=order)
    rows = rows_of(layer, inputs)
    gram = patch_gram(layer, inputs)
    assert gram is not None
    torch.testing.assert_close(gram, rows @ rows.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(CHANNELS, 4, 1),
        nn.Conv2d(CHANNELS, 4, 3, stride=2),
        nn.Conv2d(LEAST_CHANNELS - 1, 4, 3),
        nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS),
        nn.ConvTranspose2d(CHANNELS, 4, 3),
        nn.Linear(CHANNELS, 4),
    ],
    ids=str,
)
def test_elsewhere_rows_are_as_cheap(layer: nn.Module) -> None:
    assert patch_gram(layer, drawn(1, getattr(layer, "in_channels", CHANNELS), 6, 6)) is None


def test_restarts_tried_together_are_as_far_and_as_steep_as_one_by_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, CHANNELS, 5, stride=4), nn.Tanh()),
        *(nn.Conv2d(CHANNELS, 8, 3, padding=1), nn.Tanh()),
        *(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.LazyLinear(2)),
    ).eval()
    model(drawn(1, 3, 24, 24))
    reader = InputReader(model, (3, 24, 24), 1)
    names = [name for name, _ in model.named_parameters()]
    loss = model(drawn(1, 3, 24, 24)).square().sum()
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    spans = find_spans(reader, update, clean=True)
    assert "2.weight" in {span.name for span in spans}

    def distance(images: Tensor) -> Tensor:
        return span_distance(reader, spans, images)

    tried = drawn(3, 1, 3, 24, 24)
    slopes, far = torch.func.vmap(torch.func.grad_and_value(distance))(tried)
    for one, slope, apart in zip(tried, slopes, far, strict=True):
        own, value = torch.func.grad_and_value(distance)(one)
        torch.testing.assert_close(value, apart)
        torch.testing.assert_close(own, slope)
    # By rows alone, which nothing sums up.
    with torch.no_grad():
        uses = reader.inputs([span.name for span in spans], tried[0])
        plain = torch.stack([s.trust * s.distance(s.rows(uses[s.name])) for s in spans]).mean()
    torch.testing.assert_close(plain, far[0])


def test_distances_are_computed_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = nn.Conv2d(CHANNELS, 4, 3, padding=1), drawn(1, CHANNELS, 4, 4)
    rows = rows_of(layer, inputs)
    basis = torch.linalg.svd(rows.double(), full_matrices=False).Vh[:, :3]
    span = LayerSpan("w", 16, basis, torch.ones(1, 3).double(), whole=True, full=False, floor=0.0)
    assert float(span.distance_of_inputs([(layer, inputs)], 1)) < 1e-6
    wrong = "fedaudit.attacks.evidence.layer_spans.patch_gram"
    monkeypatch.setattr(wrong, lambda *_: 2 * rows.double() @ rows.double().mT)
    assert float(span.distance_of_inputs([(layer, inputs)], 1)) == pytest.approx(0.5, abs=1e-4)


def test_slopes_of_half_precision_are_as_exact_as_their_rows() -> None:
    rows = drawn(1, 16, 40).bfloat16()
    basis = torch.linalg.qr(drawn(1, 40, 3).double()).Q.mT
    span = LayerSpan("w", 16, basis, torch.ones(1, 3).double(), whole=True, full=False, floor=0.0)
    slopes = []
    for precise in (rows, rows.double()):
        leaf = precise.clone().requires_grad_()
        slopes.append(torch.autograd.grad(span.distance(leaf), leaf)[0])
    assert slopes[0].dtype == torch.bfloat16
    torch.testing.assert_close(slopes[0], slopes[1].bfloat16(), rtol=0.008, atol=1e-6)
