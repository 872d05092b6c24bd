"""What layers' gradients say of their inputs, on networks that are none of ours."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import swin_t

import fedaudit
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan, _lower_gram, span_distance
from fedaudit.attacks.evidence.layer_unfolding import rows_of
from fedaudit.attacks.evidence.position_embedding import photo_by_position
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.search.image_priors import (
    FACE_DEVIATION,
    FACE_HIGHLIGHT,
    FACE_MEAN,
    exposure,
    face_colors,
)
from fedaudit.core.errors import AttackError
from fedaudit.scoring.image_metrics import PSNR


class Tokens(nn.Module):
    """Patches as tokens, self-attention with a fused projection, a tied layer, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 8, stride=8)
        self.attention = nn.MultiheadAttention(48, 4, batch_first=True)
        self.mlp = nn.Linear(48, 96)
        self.head = nn.Linear(96, 7)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        scores: Tensor = self.head(self.mlp(tokens).tanh().mean(1))
        return scores


def convolutions() -> nn.Module:
    """Groups, dilation, other paddings, a transposed layer, dropout, one layer used twice."""
    twice = nn.Conv2d(64, 64, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 64, 5, stride=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, groups=2, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv2d(64, 64, 3, padding="same", dilation=2),
        nn.Tanh(),
        twice,
        nn.ReLU(),
        twice,
        nn.ConvTranspose2d(64, 32, 2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32 * 5 * 5, 7),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"tokens": Tokens, "convolutions": convolutions}


def gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    loss = F.cross_entropy(model(images), torch.arange(len(images)) % 7)
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def drawn(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def spans_of(name: str, count: int = 1) -> tuple[nn.Module, InputReader, tuple[LayerSpan, ...]]:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    reader = InputReader(model, (3, 32, 32), count)
    return model, reader, find_spans(reader, gradients(model.eval(), drawn(count)), clean=True)


@pytest.mark.parametrize(
    ("network", "read"),
    [
        (
            "tokens",
            {"patch.weight", "mlp.weight", "head.weight"}
            | {f"attention.{name}" for name in ("in_proj_weight", "out_proj.weight")},
        ),
        ("convolutions", {f"{k}.weight" for k in (0, 2, 4, 6, 9, 12)}),
    ],
)
def test_every_kind_of_layer_is_read(network: str, read: set[str]) -> None:
    _, reader, spans = spans_of(network)
    assert {span.name for span in spans} == read
    with torch.no_grad():
        true = reader.rows([span.name for span in spans], drawn(1))
        other = reader.rows([span.name for span in spans], drawn(1, seed=1))
    for span in spans:
        assert float(span.distance(true[span.name])) < 1e-5
        assert float(span.distance(other[span.name])) > 1e-3


class Attended(nn.Module):
    """Attention as `nn.MultiheadAttention` has it, after patches that are tokens."""

    def __init__(self, *, kdim: int | None = None, batch_first: bool = True) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 8, stride=8)
        self.attention = nn.MultiheadAttention(48, 4, kdim=kdim, batch_first=batch_first)
        if kdim is not None:
            self.queries = nn.Parameter(torch.randn(3, 48))
        self.head = nn.Linear(48, 7)
        self.batch_first, self.crossed = batch_first, kdim is not None

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        if self.crossed:
            queries = self.queries.expand(len(x), 3, 48)
            mixed = self.attention(queries, tokens[..., : self.attention.kdim], tokens)[0]
        else:
            mixed = self.attention(tokens, tokens, tokens)[0]
        scores: Tensor = self.head(mixed.mean(1 if self.batch_first else 0))
        return scores


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({}, {"in_proj_weight", "out_proj.weight"}),
        ({"batch_first": False}, {"in_proj_weight", "out_proj.weight"}),
        # Queries are the network's own, so that they say nothing of images.
        ({"kdim": 40}, {"k_proj_weight", "v_proj_weight", "q_proj_weight", "out_proj.weight"}),
    ],
)
def test_attention_is_read_whatever_its_projections(
    settings: dict[str, Any], read: set[str]
) -> None:
    torch.manual_seed(0)
    model = Attended(**settings).eval()
    reader = InputReader(model, (3, 32, 32), 2)
    spans = {s.name: s for s in find_spans(reader, gradients(model, drawn(2)), clean=True)}
    assert {name for name in spans if "attention" in name} == {f"attention.{n}" for n in read}
    with torch.no_grad():  # where attention would be fused
        true, other = (reader.inputs(list(spans), drawn(2, seed=s)) for s in (0, 1))
        alone = reader.inputs(list(spans), drawn(2)[1:])
        for name, span in spans.items():
            assert float(span.distance_of_inputs(true[name], 2)) < 1e-5
            if "q_proj" not in name:
                assert float(span.distance_of_inputs(other[name], 2)) > 1e-3
            entered = true[name][0][1]  # one image after the other, whatever attention has outside
            torch.testing.assert_close(entered[1:], alone[name][0][1], atol=1e-5, rtol=1e-4)


class Halves(nn.Module):
    """One input enters a layer and a matrix that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(3 * 8 * 8, 20), nn.Parameter(torch.randn(20, 3 * 8 * 8))
        self.head = nn.Linear(20, 7)

    def forward(self, x: Tensor) -> Tensor:
        flat = F.avg_pool2d(x, 4).flatten(1)
        scores: Tensor = self.head(self.layer(flat).tanh() + F.linear(flat, self.other).tanh())
        return scores


def test_what_enters_a_layer_and_a_call_is_read_of_both_and_once() -> None:
    torch.manual_seed(0)
    model = Halves().eval()
    reader = InputReader(model, (3, 32, 32), 1)
    assert set(reader.positions()) == {"layer.weight", "other", "head.weight"}
    uses = reader.inputs(["layer.weight", "other"], drawn(1))
    assert [len(uses[name]) for name in ("layer.weight", "other")] == [1, 1]
    one, other = (rows_of(*uses[name][0]) for name in ("layer.weight", "other"))
    torch.testing.assert_close(one, other)


def test_projections_that_are_applied_by_calls_are_read() -> None:
    """torchvision's Swin: of 65 matrices 26 were, none of them in its attention."""
    torch.manual_seed(0)
    model = swin_t(num_classes=7).eval()
    positions = InputReader(model, (3, 64, 64), 1).positions()
    read = {name for name in positions if ".attn." in name}
    # Earlier ones have more places than a token has numbers.
    blocks = [f"features.5.{k}" for k in range(6)] + [f"features.7.{k}" for k in range(2)]
    assert read == {f"{b}.attn.{kind}.weight" for b in blocks for kind in ("qkv", "proj")}


def test_columns_that_were_not_sent_are_not_compared() -> None:
    """Soteria's zeros: what is left of a gradient has the span of what is left of the inputs."""
    torch.manual_seed(0)
    model, image = convolutions().eval(), drawn(1)
    reader, sent = InputReader(model, (3, 32, 32), 1), gradients(model, image)
    sent["12.weight"][:, ::2] = 0
    distances = {}
    for gaps in (False, True):
        spans = [
            s for s in find_spans(reader, sent, clean=True, gaps=gaps) if s.name == "12.weight"
        ]
        assert (spans[0].sent is not None) == gaps
        with torch.no_grad():
            distances[gaps] = float(span_distance(reader, spans, image))
            other = float(span_distance(reader, spans, drawn(1, seed=1)))
        assert other > 1e-3
    assert distances[False] > 0.1
    assert distances[True] < 1e-5


def test_what_lies_behind_dropout_is_marked() -> None:
    torch.manual_seed(0)
    model = convolutions().train()
    positions = InputReader(model, (3, 32, 32), 1).positions()
    assert {name for name, place in positions.items() if not place.certain} == {"12.weight"}
    assert all(module.training for module in model.modules())


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


def test_a_frozen_or_unused_layer_is_left_out() -> None:
    torch.manual_seed(0)
    model = convolutions().eval()
    target = {n: g for n, g in gradients(model, drawn(1)).items() if not n.startswith("4.")}
    model.get_submodule("0").add_module("unused", nn.Linear(64, 64))
    reader = InputReader(model, (3, 32, 32), 1)
    assert {span.name for span in find_spans(reader, target, clean=True)} == {
        *("0.weight", "2.weight", "6.weight", "9.weight", "12.weight")
    }


def test_what_cannot_be_read_is_said() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    update = gradients(nn.Sequential(plain, nn.Linear(4, 7)), drawn(1))
    model = nn.Sequential(plain, nn.Linear(4, 7))
    with pytest.raises(AttackError, match=r"no layer of the network .* has fewer positions"):
        fedaudit.attack(model, update, "subspace_matching", images=8, image_shape=(3, 32, 32))


def test_batch_norm_keeps_its_statistics_and_its_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 5, stride=4), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 5 * 5, 7)),
    ).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    reader = InputReader(model, (3, 32, 32), 2)
    reader.rows(list(reader.positions()), drawn(2))
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())


def vision_transformer() -> nn.Module:
    """torchvision's, small, with a head that sends something back, behind a standardization."""
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=7)
    nn.init.normal_(network.heads.get_submodule("head").weight, std=0.1)
    return nn.Sequential(nn.BatchNorm2d(3, affine=False), network).eval()


def test_a_transformer_gives_its_photo_away_exactly() -> None:
    model, photo = vision_transformer(), drawn(1)
    rebuilt = fedaudit.attack(
        model, gradients(model, photo), "subspace_matching", image_shape=(3, 32, 32)
    )
    assert torch.allclose(rebuilt.images, photo, atol=2e-3)
    assert rebuilt.labels.tolist() == [0]
    assert rebuilt.objective < 1e-5


def test_a_batch_of_a_transformer_is_searched_for() -> None:
    model, photos = vision_transformer(), drawn(2)
    reading = SimpleNamespace(
        count=2, private=frozenset(), model=model, target=gradients(model, photos)
    )
    assert photo_by_position(reading) is None  # type: ignore[arg-type]


def faces_noise(channels: int) -> Tensor:
    """Noise with the mean and deviation of faces' colors; `[2, channels, 16, 16]`."""
    noise = torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean((0, 2, 3), keepdim=True)) / noise.std((0, 2, 3), keepdim=True)
    mean, deviation = torch.tensor(FACE_MEAN), torch.tensor(FACE_DEVIATION)
    if channels == 1:
        mean, deviation = mean.mean()[None], deviation.mean()[None]
    return noise * deviation[:, None, None] + mean[:, None, None]


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_of_a_batch_are_drawn_to_those_of_faces(channels: int) -> None:
    images = faces_noise(channels)
    assert float(face_colors(images)) == pytest.approx(0, abs=1e-6)
    assert float(face_colors(images + 0.1)) == pytest.approx(channels * 0.01, rel=1e-3)


@pytest.mark.parametrize("center", [0.0, 0.5])
def test_the_contrast_is_found_with_which_highlights_are_as_photos_of_faces_have_them(
    center: float,
) -> None:
    images = torch.linspace(0, FACE_HIGHLIGHT / 0.98, 1000).repeat(2, 3, 5, 1)
    for gain in (0.5, 1.0, 1.25):
        assert exposure(center + (images - center) / gain, center) == pytest.approx(gain, rel=1e-3)


def test_highlights_of_more_numbers_than_torch_sorts_are_found() -> None:
    images = torch.linspace(0, 1, 100).repeat(3, 600, 100)[None]  # 18 million
    assert exposure(images) == pytest.approx(FACE_HIGHLIGHT / 0.98, rel=0.02)


def of_other_signs(update: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of the same sizes, each with a sign by chance: zeros stay, and spans are others."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value * (2 * torch.randint(2, value.shape, generator=generator) - 1)
        for name, value in update.items()
    }


@pytest.mark.slow  # whole searches on a stock network
def test_a_stock_resnet18_gives_a_photo_away() -> None:
    """Far better than by spans that say nothing; `benchmarks/subspace.py` does it on faces."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=100).eval()
    axis = torch.linspace(-1, 1, 64)
    disc = torch.sigmoid(9 * (0.7 - (axis[None] ** 2 + axis[:, None] ** 2).sqrt()))
    colors = torch.tensor([0.8, 0.5, 0.3])[:, None, None]
    photo = (0.1 + disc * colors * (1 + 0.3 * torch.sin(9 * axis)[None, None])).clamp(0, 1)[None]
    loss = F.cross_entropy(model(photo), torch.tensor([3]))
    named = dict(model.named_parameters())
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    right, wrong = (
        fedaudit.attack(
            model,
            sent,
            "subspace_matching",
            image_shape=(3, 64, 64),
            settings={"steps": 100, "polish": 0, "mends": 0, "fading": 2.0},
        )
        for sent in (update, of_other_signs(update))
    )
    assert right.labels.tolist() == [3]
    assert right.objective < 0.1 * wrong.objective
    apart = PSNR()(photo, right.images) - PSNR()(photo, wrong.images)
    assert float(apart) > 8  # decibels; it was 11


def test_the_mean_over_layers_is_zero_for_the_truth_alone() -> None:
    _, reader, spans = spans_of("tokens", count=1)
    assert float(span_distance(reader, spans, drawn(1)).detach()) < 1e-4
    assert float(span_distance(reader, spans, drawn(1, seed=2)).detach()) > 0.1
