"""Images that an update would hardly miss."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.search.faint_images import FAINT, redraw_faint
from fedaudit.attacks.search.scene import Scene, StageResult
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.trace import Trace
from fedaudit.attacks.search.variables.pixels import Pixels

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import sent, spans_in
from test_common_maps import drawn, network


class Weighed:
    """A distance that misses each image by so much, whatever stands in its place."""

    def __init__(self, images: Tensor, weights: Tensor) -> None:
        self.images, self.weights = images, weights

    def distance(self, images: Tensor) -> float:
        """Of `[N, C, H, W]`."""
        apart = (images - self.images).abs().flatten(1).amax(1) > 1e-6
        return float((apart * self.weights).sum())


def test_an_image_that_is_not_missed_becomes_the_mean_of_the_others() -> None:
    images = drawn(5)
    weights = torch.tensor([1.0, 2.0, 0.9 * FAINT, 1.0, 1.1 * FAINT])  # their median is 1
    spans = cast("SpanMatching", Weighed(images, weights))
    redrawn = redraw_faint(spans, images)
    kept = [0, 1, 3, 4]
    assert torch.equal(redrawn[kept], images[kept])
    assert torch.allclose(redrawn[2], images[kept].mean(0))


@pytest.mark.parametrize(
    "weights", [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [-1.0, -1.0, -4.0, 1.0]]
)
def test_where_none_says_less_than_the_others_all_stay(weights: list[float]) -> None:
    images = drawn(4)
    spans = cast("SpanMatching", Weighed(images, torch.tensor(weights)))
    assert torch.equal(redraw_faint(spans, images), images)


def test_of_one_step_on_a_batch_each_image_is_missed() -> None:
    model, images = network(normalized=True).train(), drawn(4)
    spans = spans_in(model, sent(model, images), images)
    assert torch.equal(redraw_faint(spans, images), images)


@pytest.mark.parametrize(
    ("begins", "told", "follows"),
    [(True, True, True), (False, True, True), (True, False, True), (True, True, False)],
)
def test_they_are_drawn_anew_as_a_search_begins_to_follow_steps(
    begins: bool, told: bool, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when it is resumed, as saved images say what the network was like, nor for nothing."""
    model, images = network(normalized=True).train(), drawn(3)
    spans = spans_in(model, sent(model, images), images)
    weighed, seen, best = Weighed(images, torch.tensor([1, 1, 0])), list[Tensor](), torch.zeros(1)

    def follow(_: SpanMatching, now: Tensor) -> bool:
        seen.append(now)
        return follows

    monkeypatch.setattr(SpanMatching, "distance", lambda _, now: weighed.distance(now))
    monkeypatch.setattr(SpanMatching, "follow", follow)
    monkeypatch.setattr("fedaudit.attacks.search.search_run.are_told_apart", lambda _: told)
    run = SearchRun(Scene(spans.evidence, spans, torch.Generator()), (), Trace(2, None, None))
    run.scene = SimpleNamespace(leading=spans, evidence=spans.evidence)  # type: ignore[assignment]
    run.images, run.best = images[None], best
    stage = Stage(varies=Pixels(), steps=1, lr=0.1, match="spans", follows=True)
    before = run._follow(stage, StageResult(run.images), begins=begins)
    wanted = torch.stack([images[0], images[1], images[:2].mean(0) if begins else images[2]])
    if not told or not follows:
        assert torch.equal(run.images[0], images)
        assert torch.equal(run.best, best)
        assert len(seen) == told
        return
    assert torch.equal(seen[0], wanted)
    assert torch.equal(before.images[0], wanted)
    assert torch.equal(run.images[0], wanted)
    assert bool(run.best.isinf())
    assert run._follow(replace(stage, follows=False), before, begins=True) is before
