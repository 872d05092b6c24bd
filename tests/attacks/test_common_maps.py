"""Whole maps of a batch out of a convolution's gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.common_maps import common_maps, with_whole_maps
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan, span_distance
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build

SHAPE = (3, 16, 16)


def network(*, normalized: bool) -> nn.Module:
    """Maps of 16 channels and 4 × 4 places enter the third module, by as many in a batch of 3."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(64) if normalized else nn.Identity()
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=4, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 64, 3, padding=1), norm, nn.ReLU()),
        *(nn.Conv2d(64, 4, 1), nn.Flatten(), nn.Linear(64, 5)),
    )
    return model.train(normalized)


def drawn(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def spans_of(model: nn.Module, images: Tensor) -> tuple[InputReader, tuple[LayerSpan, ...]]:
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(images), torch.arange(len(images)) % 5)
    slopes = torch.autograd.grad(loss, list(named.values()))
    reader = InputReader(model, SHAPE, len(images))
    return reader, find_spans(reader, dict(zip(named, slopes, strict=True)), clean=True)


def third(spans: tuple[LayerSpan, ...]) -> LayerSpan:
    return next(span for span in spans if span.name == "2.weight")


def assert_spans(basis: Tensor | None, model: nn.Module, images: Tensor) -> None:
    """As many maps as images, among which each of those that enter the third module lies."""
    assert basis is not None
    with torch.no_grad():
        true = F.relu(model.get_submodule("0")(images)).flatten(1)
    inside = (F.normalize(true.double(), dim=1) @ basis.T).norm(dim=1)
    assert len(basis) == len(images)
    assert float(inside.min()) > 1 - 1e-6


@pytest.mark.parametrize(
    ("count", "normalized"), [(1, False), (2, False), (3, False), (2, True), (3, True)]
)
def test_the_maps_of_each_image_are_spanned_exactly(count: int, normalized: bool) -> None:
    model, images = network(normalized=normalized), drawn(count)
    reader, spans = spans_of(model, images)
    assert_spans(common_maps(reader, third(spans)), model, images)


def test_small_maps_are_found_when_nothing_else_is_kept() -> None:
    """Of 2 × 2 places: the search for them uses up all that the operator keeps anything of."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 64, 8, stride=8), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(256, 5)),
    )
    images = drawn(8)
    reader, spans = spans_of(model, images)
    assert_spans(common_maps(reader, third(spans)), model, images)


def test_maps_of_another_photo_are_far() -> None:
    model, photo, other = network(normalized=False), drawn(1), drawn(1, seed=1)
    reader, spans = spans_of(model, photo)
    whole = with_whole_maps(reader, spans, pixels=100)
    assert [span.name for span in whole if span.of_maps] == ["2.weight"]
    assert {span.name for span in whole} == {"0.weight", "2.weight"}  # none behind what decides
    maps = [span for span in whole if span.of_maps]
    with torch.no_grad():
        near, far = (float(span_distance(reader, maps, x)) for x in (photo, other))
    assert near < 1e-6
    assert far > 0.02


def test_a_span_that_is_not_whole_gives_no_maps() -> None:
    """Nor do steps between patches, which leave maps open that are shifted by a step."""
    model, images = network(normalized=False), drawn(5)  # 80 places, 64 rows
    reader, spans = spans_of(model, images)
    assert common_maps(reader, third(spans)) is None
    strided = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=4, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)),
    )
    reader, spans = spans_of(strided, drawn(1))
    assert common_maps(reader, third(spans)) is None


@pytest.mark.parametrize(("count", "known"), [(4, 64), (2, 31)])
def test_the_last_direction_of_a_square_gradient_is_no_rounding(count: int, known: int) -> None:
    """With as many rows as positions it is small by itself; with twice as many, rounding."""
    reader, _ = spans_of(network(normalized=False), drawn(count))
    with torch.no_grad():
        rows = reader.rows(["2.weight"], drawn(count))["2.weight"][0].double()
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(64, len(rows), generator=generator).double()).Q
    sizes = torch.ones(len(rows)).double()
    sizes[-1] = 1e-5
    gradient = left @ (sizes[:, None] * torch.linalg.svd(rows, full_matrices=False).Vh)
    (span,) = find_spans(reader, {"2.weight": gradient.view(64, 16, 3, 3)}, clean=True)
    assert int((span.weights > 0).sum()) == known


def test_a_pass_ends_where_all_is_heard() -> None:
    model, images = network(normalized=False), drawn(1)
    reader, spans = spans_of(model, images)
    ran: list[str] = []
    model.get_submodule("7").register_forward_hook(lambda *_: ran.append("head"))
    reader.rows([third(spans).name], images)
    assert not ran


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (ModelSpec("torchvision:resnet50", {"classes": 7}), "layer2.1.conv2.weight"),
        (ModelSpec("iresnet18", {"classes": 7, "image_size": 64}), "body.9.layers.1.weight"),
    ],
    ids=["bottleneck", "IR block"],
)
def test_maps_inside_stock_blocks_are_whole(spec: ModelSpec, name: str) -> None:
    """As they are: nobody tells what a block is."""
    model, shape = build(spec, seed=0).eval(), (3, 64, 64)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(image), torch.tensor([3]))
    slopes = torch.autograd.grad(loss, list(named.values()))
    reader = InputReader(model, shape, 1)
    spans = find_spans(reader, dict(zip(named, slopes, strict=True)), clean=True)
    basis = common_maps(reader, next(span for span in spans if span.name == name))
    assert basis is not None
    with torch.no_grad():
        entered = reader.inputs([name], image)[name][0][1].flatten(1).double()
    assert len(basis) == 1
    assert float((F.normalize(entered, dim=1) @ basis.T).norm()) > 1 - 1e-6
