"""Where an image contradicts the update, and what mending leaves alone."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fedaudit
from fedaudit.attacks.search.scene import Scene, StageResult
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching
from fedaudit.attacks.search.span_mending import HOPELESS, mend, misfit
from fedaudit.attacks.search.variables.pixels import ANEW, Pixels

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import sent, spans_in
from test_common_maps import drawn, network


def spans_of(count: int, *, normalized: bool) -> SpanMatching:
    model = network(normalized=normalized)
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(drawn(count)), torch.arange(count) % 5)
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    return spans_in(model, update, drawn(count))


def spoiled(images: Tensor) -> Tensor:
    """The first image's upper left corner is another's."""
    wrong = images.clone()
    wrong[0, :, :5, :5] = drawn(1, seed=7)[0, :, :5, :5]
    return wrong


@pytest.mark.parametrize(("count", "normalized"), [(1, False), (2, False), (2, True)])
def test_it_is_told_where_an_image_is_wrong(count: int, normalized: bool) -> None:
    spans, images = spans_of(count, normalized=normalized), drawn(count)
    apart = misfit(spans, spoiled(images))
    assert apart is not None
    assert apart.shape == (count, 1, 16, 16)
    image, place = divmod(int(apart.flatten().argmax()), 256)
    assert (image, place // 16 < 8, place % 16 < 8) == (0, True, True)


def test_only_what_is_wrong_is_drawn_anew() -> None:
    spans, wrong = spans_of(1, normalized=False), spoiled(drawn(1))
    better = mend(spans, wrong, torch.Generator().manual_seed(0))
    moved = (better - wrong).abs().amax(1)[0]
    assert float(moved[:4, :4].max()) > 0.05
    assert float(moved[14:, 14:].max()) == 0
    again = mend(spans, wrong, torch.Generator().manual_seed(0))
    assert torch.equal(better, again)


@pytest.mark.parametrize(("distance", "steps"), [(1e-4, 3), (5e-3, 6), (0.3, 3)])
def test_what_is_nearly_right_or_all_wrong_is_not_mended(
    distance: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpanMatching, "distance", lambda _self, _images: distance)
    model = network(normalized=False)
    update = sent(model, drawn(1))
    rebuilt = fedaudit.attack(
        model,
        update,
        "subspace_matching",
        image_shape=(3, 16, 16),
        settings={"steps": 3, "polish": 0, "fading": 2.0},
    )
    assert rebuilt.iterations == steps


@pytest.mark.parametrize(
    ("distances", "far", "starts"),
    [
        ((2e-3, 2e-3), False, ["normal", "mended", "anew", "last"]),
        ((2e-2, 2e-2), True, ["normal", "mended"]),
        ((2e-3, 1e-4), False, ["normal", "mended"]),
        ((1e-4, 1e-4), False, ["normal"]),
        ((0.3, 0.3), True, ["normal"]),
    ],
)
def test_what_mending_leaves_wrong_is_searched_anew_from_a_coarse_grid(
    distances: Sequence[float],
    far: bool,
    starts: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Distances where the search ends, and where mending does; then it goes on where that ended."""
    conditions = "fedaudit.attacks.search.stage_conditions"
    monkeypatch.setattr(f"{conditions}.misses", lambda *_: far)
    left, begun, begin = iter(distances), [], Pixels.begin
    monkeypatch.setattr(f"{conditions}.is_stuck", lambda *_: SEEN < next(left) < HOPELESS)

    def noted(self: Pixels, scene: Scene, before: StageResult) -> list[Tensor]:
        values = begin(self, scene, before)
        begun.append(self.start)
        assert values[0].shape[-2:] == ((8, 8) if self.start == "anew" else (16, 16))
        if self.start == "last":
            assert before.varied == ANEW
            assert torch.equal(values[0], ANEW.decode(scene, before.variables[0]).detach())
        return values

    monkeypatch.setattr(Pixels, "begin", noted)
    monkeypatch.setattr(SpanMatching, "leaves_detail", False)  # as of networks with more layers
    model = network(normalized=False)
    update = sent(model, drawn(1))
    settings = {"steps": 5, "polish": 0}
    fedaudit.attack(model, update, "subspace_matching", image_shape=(3, 16, 16), settings=settings)
    assert begun == starts
