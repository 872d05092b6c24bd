"""Steps of Adam go down every other layer's distance, in turn."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_spans import span_distance, span_distances
from fedaudit.attacks.search import span_matching
from fedaudit.attacks.search.movers.mover import Plan, Task
from fedaudit.attacks.search.movers.round_wise import TURN, Movement
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.trace import Trace

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import sent, spans_in

LAYERS = 5


@pytest.fixture
def matching(monkeypatch: pytest.MonkeyPatch) -> SpanMatching:
    """Of one image, through a few layers, which are enough."""
    monkeypatch.setattr(span_matching, "TURNS", LAYERS)
    monkeypatch.setattr(span_matching, "SHARP", 0)
    return new_matching()


def new_matching() -> SpanMatching:
    torch.manual_seed(0)
    widths = (3, 8, 8, 8, 8)
    blocks = [
        part
        for given, sends in pairwise(widths)
        for part in (nn.Conv2d(given, sends, 3, 2 if given == 3 else 1, 1), nn.Softplus())
    ]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    spans = spans_in(model, sent(model, drawn(0)), drawn(0))
    assert len(spans.spans) == LAYERS
    return spans


def drawn(seed: int) -> Tensor:
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def slope(matching: SpanMatching, images: Tensor, part: int | None) -> tuple[float, Tensor]:
    """The value of a step, and its slope."""
    images = images.clone().requires_grad_()
    value = matching.gradients(images, [0], part=part)[1]
    return float(value.detach()), torch.autograd.grad(value, images)[0]


def test_a_turn_begins_with_all_layers(matching: SpanMatching) -> None:
    whole, first = (slope(matching, drawn(1), part) for part in (None, 0))
    assert first[0] == pytest.approx(whole[0], rel=1e-6)
    assert torch.allclose(first[1], whole[1], rtol=1e-4, atol=1e-8)
    assert whole[0] == pytest.approx(matching.distance(drawn(1)), rel=1e-6)


def test_then_every_other_layer_leads_and_the_others_count_as_they_were(
    matching: SpanMatching,
) -> None:
    before, now = drawn(1), drawn(2)
    last = span_distances(matching.reader, matching.spans, before).detach()
    here = span_distances(matching.reader, matching.spans, now).detach()
    slope(matching, before, 0)
    for part in (1, 2):
        led = now.clone().requires_grad_()
        of_some = span_distance(matching.reader, matching.spans[part % 2 :: 2], led)
        value, found = slope(matching, now, part)
        last[part % 2 :: 2] = here[part % 2 :: 2]
        assert value == pytest.approx(float(last.mean()), rel=1e-6)
        assert torch.allclose(found, torch.autograd.grad(of_some, led)[0], rtol=1e-4, atol=1e-8)


def test_of_images_that_miss_spans_all_layers_lead_always(matching: SpanMatching) -> None:
    whole = slope(matching, drawn(1), None)
    matching.evidence = replace(
        matching.evidence, misfit={span.name: 0.1 for span in matching.spans}
    )
    assert matching.drifted
    value, found = slope(matching, drawn(1), 1)
    assert value == pytest.approx(whole[0], rel=1e-6)
    assert torch.allclose(found, whole[1])


@pytest.mark.parametrize("bound", ["TURNS", "SHARP"])
def test_where_layers_or_equations_are_few_all_lead_always(
    bound: str, matching: SpanMatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = slope(matching, drawn(1), None)
    monkeypatch.setattr(span_matching, bound, 1000)
    value, found = slope(matching, drawn(1), 1)
    assert value == pytest.approx(whole[0], rel=1e-6)
    assert torch.allclose(found, whole[1])


def test_a_search_goes_on_as_if_it_had_not_stopped(matching: SpanMatching) -> None:
    def movement(spans: SpanMatching) -> Movement:
        variable = drawn(3)[0][None].clone().requires_grad_()
        task = Task(spans, [variable], lambda images: images, _nothing, Trace(3 * TURN))
        return Movement(task, Plan(steps=3 * TURN, lr=0.05))

    saved: list[dict[str, Tensor]] = []
    one = movement(matching)
    one.run(lambda: saved.append(one.state()))
    other = movement(new_matching())
    other.load(saved[0])
    other.run()
    assert torch.equal(one.task.variables[0], other.task.variables[0])
    assert not torch.equal(one.task.variables[0], drawn(3)[0][None])


def _nothing(_variable: Tensor, images: Tensor, _left: float) -> Tensor:
    return images.new_zeros(())
