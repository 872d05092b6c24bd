"""What layers' gradients say of their inputs, on networks that are none of ours."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import swin_t

import fedaudit
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import span_distance
from fedaudit.attacks.evidence.layer_unfolding import rows_of
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.models.batch_norm import replay_mode
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from layered_networks import convolutions, drawn, gradients, spans_of
from small_networks import Dropped


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


def test_what_a_client_drew_is_marked_where_the_attacker_draws_nothing() -> None:
    """As attacks put networks (`replay_mode`), which compute what dropout does on average."""
    model = replay_mode(convolutions(), None)
    assert all(place.certain for place in InputReader(model, (3, 32, 32), 1).positions().values())
    modes = {name: module.training for name, module in model.named_modules()}
    positions = InputReader(model, (3, 32, 32), 1, draws=True).positions()
    assert {name for name, place in positions.items() if not place.certain} == {"12.weight"}
    assert {name: module.training for name, module in model.named_modules()} == modes


def dropped(*, classes: int, image_size: int) -> nn.Module:
    """Of ten classes."""
    del classes, image_size
    return Dropped()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_batch_behind_stochastic_depth_is_searched_for_as_blurred(
    mode: Literal["train", "eval"],
) -> None:
    spec = ModelSpec(f"{__name__}:dropped", {"classes": 10, "image_size": 32})
    model, images = build(spec, seed=0), drawn(2)
    loss = F.cross_entropy(model(images), torch.tensor([3, 5]))
    named = dict(model.named_parameters())
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    seen = Observation(
        spec,
        {name: value.detach().clone() for name, value in model.state_dict().items()},
        (Update("gradient", update, 2),),
        (3, 32, 32),
        2,
        10,
        batch_norm=mode,
    )
    spans = SpanMatching(gather_inputs(seen))
    assert all(span.certain for span in spans.evidence.spans) == (mode == "eval")
    assert spans.blurred == (mode == "train")
    # Of one photo it may be that nothing was drawn, and all follows.
    alone = replace(spans.evidence, count=1)
    assert not SpanMatching(alone).blurred


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
