"""Quarters of an image that a search by spans mixed up are put where they are nearest."""

import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fedaudit
from fedaudit.attacks.search.block_order import NEARER, in_nearest_order, with_quarters
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.scene import Scene, StageResult, images_of
from fedaudit.attacks.search.schedules.span_stages import span_stages
from fedaudit.attacks.search.schedules.waves import wave_stage, waves_in_order
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum

sys.path.insert(0, str(Path(__file__).parent))
from interrupted_search import assert_goes_on, seeded
from small_spans import seen_in, sent, spans_in
from test_common_maps import drawn, network


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_photo_whose_quarters_were_mixed_up_comes_back(order: tuple[int, ...]) -> None:
    model, photo = network(normalized=False), drawn(1)
    spans = spans_in(model, sent(model, photo), photo)
    assert torch.equal(in_nearest_order(spans, with_quarters(photo, order)), photo)
    assert in_nearest_order(spans, photo) is photo


def test_an_order_that_is_hardly_nearer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that does not ask where patches are, all orders are as near."""
    model, photo = network(normalized=False), drawn(1)
    spans = spans_in(model, sent(model, photo), photo)
    near = 1.001 * NEARER

    def distance(_: SpanMatching, images: Tensor) -> float:
        return 1.0 if torch.equal(images, photo) else near

    monkeypatch.setattr(SpanMatching, "distance", distance)
    assert in_nearest_order(spans, photo) is photo
    near = 0.999 * NEARER
    assert in_nearest_order(spans, photo) is not photo
    odd = photo[..., :15]
    assert in_nearest_order(spans, odd) is odd


@pytest.mark.parametrize(("reached", "begins"), [(0.2, True), (SEEN / 2, False), (0.5, False)])
def test_what_waves_miss_is_sketched_and_put_in_order(
    reached: float, begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the best images so far, which are at the end of a search, but the sketch."""
    told: list[tuple[Tensor, Tensor]] = []
    begin = CosineSpectrum.begin

    def noted(self: CosineSpectrum, scene: Scene, before: StageResult) -> list[Tensor]:
        spectra = begin(self, scene, before)
        if self.start == "reordered":
            assert isinstance(before.varied, CosineSpectrum)
            sketch = images_of(scene, before)[:, 0].clamp(0, 1)
            told.append((sketch, self.decode(scene, spectra[0])))
        return spectra

    monkeypatch.setattr(CosineSpectrum, "begin", noted)
    monkeypatch.setattr(SpanMatching, "leaves_detail", False)
    monkeypatch.setattr(SpanMatching, "distance", lambda *_: reached)
    monkeypatch.setattr(
        "fedaudit.attacks.search.variables.cosine_spectrum.in_nearest_order",
        lambda _, images: with_quarters(images, (3, 2, 1, 0)),
    )
    model = network(normalized=False)
    fedaudit.attack(
        model,
        sent(model, drawn(1)),
        "subspace_matching",
        image_shape=(3, 16, 16),
        settings={"steps": 3, "polish": 0},
    )
    assert len(told) == (2 if begins else 0)
    for sketch, begun in told:
        torch.testing.assert_close(with_quarters(sketch, (3, 2, 1, 0)), begun, atol=1e-5, rtol=0)


@pytest.mark.parametrize("saves", [0, 1, 2, 3, 4, 5])
def test_it_goes_on_where_it_was_interrupted(
    saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the sketch, and behind it and behind each order; the end is the same, to the bit."""
    model = network(normalized=False)
    seen = seen_in(model, sent(model, drawn(1)), drawn(1))
    waves = wave_stage(replace(span_stages(steps=25)[0], fading=2.0), 768)
    attack = MatchingAttack(stages=waves_in_order(replace(waves, if_missed=1e-9)), match="spans")
    asked: list[Tensor] = []
    in_order = in_nearest_order

    def noted(spans: SpanMatching, images: Tensor) -> Tensor:
        asked.append(images)
        return in_order(spans, images)

    monkeypatch.setattr("fedaudit.attacks.search.variables.cosine_spectrum.in_nearest_order", noted)
    # The first stage of an attack has nothing that could have been missed.
    first, *then = attack.stages
    attack = replace(attack, stages=(replace(first, if_missed=0.0), *then))

    whole = attack(seen, generator=seeded())
    assert len(asked) == 2
    assert whole.iterations == 100
    assert_goes_on(attack, seen, whole, saves, tmp_path)
