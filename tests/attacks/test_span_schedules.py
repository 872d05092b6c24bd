"""How searches by spans suit networks and batches, and the priors that hold their images."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.grad_inversion import grad_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.search.image_priors import (
    COLOR_WEIGHTS,
    MATCHING_COLOR_WEIGHTS,
    ColorWeights,
    WithinRange,
    color_variation,
    face_colors,
    total_variation,
)
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.scene import StageResult, Varies
from fedaudit.attacks.search.schedules.one_photo_batch_norm import COUPLED_TURNS
from fedaudit.attacks.search.schedules.span_stages import SPAN_FADING, span_stages
from fedaudit.attacks.search.schedules.suited import suited
from fedaudit.attacks.search.schedules.waves import BLURRED_MISSED
from fedaudit.attacks.search.span_matching import EXPLAINED, SEEN, SpanMatching
from fedaudit.attacks.search.stage import from_gray
from fedaudit.attacks.search.stage_conditions import is_left_out
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.variables.latents import Latent
from fedaudit.attacks.search.variables.pixels import OTHER_NOISE, Pixels

sys.path.insert(0, str(Path(__file__).parent))
from test_common_maps import drawn


def test_one_searches_by_waves_where_spans_leave_detail_open() -> None:
    kept, faded = (suited(span_stages(), open_detail=blind) for blind in (True, False))
    search = [("adam", 2, 400, 1.0), ("lbfgs", 0, 49, 1e-3)]
    assert [(s.optimizer, s.fading, s.steps, s.total_variation) for s in kept] == 2 * search
    assert [isinstance(s.varies, CosineSpectrum) and s.varies.start for s in kept] == [
        *("normal", "previous"),
        *("normal", "last"),
    ]
    assert [stage.if_missed for stage in kept] == [0, 0, EXPLAINED, 0]
    assert kept[0].schedule == "exponential"
    for size, polish, times in ((64, 49, 2), (112, 49, 2)):
        usual = suited(span_stages(), open_detail=True, pixels=3 * size**2)
        assert [stage.steps for stage in usual] == times * [400, polish]
    for size, polish in ((160, 24), (224, 14), (448, 14)):
        waves, last = suited(span_stages(), open_detail=True, pixels=3 * size**2)
        assert (waves.steps, last.steps) == (300, polish)
        assert waves.lr == pytest.approx(kept[0].lr * 112 / size)
        assert waves.total_variation == pytest.approx(size / 112)
    before = replace(span_stages(fading=2.0)[0], steps=7)
    assert suited((before, *span_stages()), open_detail=True) == (before, *kept)
    assert WithinRange() in kept[0].priors
    assert [(stage.optimizer, stage.fading) for stage in faded] == [
        *[("adam", 2)] * 2,
        *[("adam", 1), ("adam", 2)],  # from a coarse grid, where it is stuck
        ("lbfgs", 0),
    ]
    assert [(stage.steps, stage.total_variation) for stage in faded[:2]] == [(100, 1.0), (100, 0.5)]
    begun, *_ = span_stages()
    cases: list[tuple[Varies, list[Varies]]] = [
        (Latent(), [Latent()]),
        (Pixels(start="previous"), []),
    ]
    for varies, turn in cases:
        turns = suited((replace(begun, varies=varies), kept[1]), open_detail=True)
        after = [CosineSpectrum(), kept[1].varies, *(stage.varies for stage in kept[2:])]
        assert [stage.varies for stage in turns] == [*turn, *after]
    single = suited(span_stages(), open_detail=False, single=True)
    *_, by_waves, sketch, once, in_order, last = single
    assert (by_waves, last) == (replace(kept[0], if_missed=SEEN), faded[-1])
    assert sketch.varies == by_waves.varies
    assert in_order.varies == CosineSpectrum(start="reordered")
    assert once == replace(sketch, varies=in_order.varies)
    assert sketch.steps + once.steps + in_order.steps == by_waves.steps
    assert {stage.if_missed for stage in (sketch, once, in_order)} == {SEEN}
    assert single[1].varies == OTHER_NOISE
    assert (single[0], *single[2:-5]) == faded[:-1]
    large = suited(span_stages(), open_detail=False, single=True, pixels=3 * 113**2)
    assert large == (*single[:-5], last)
    asked = span_stages(fading=1.5)
    assert suited(asked, open_detail=True) == suited(asked, open_detail=False) == asked


def test_behind_batch_norm_in_training_mode_images_are_held_smooth() -> None:
    """By more where there are more pixels; never by less than elsewhere; then less and less."""
    usual = [replace(stage, face_colors=0.3) for stage in span_stages(steps=10)]
    shares = [1.0, *(turn[4] for turn in COUPLED_TURNS)]
    for size, weight in ((16, 1), (64, 6)):
        *stages, last = suited(usual, open_detail=False, coupled=True, pixels=3 * size**2)
        assert [s.total_variation for s in stages] == pytest.approx([weight * x for x in shares])
        assert {stage.optimizer for stage in stages} == {"adam"}
        assert [(s.steps, s.fading) for s in stages] == [(20, 1), (10, 2), (10, 2), (15, 2)]
        assert [stage.varies for stage in stages] == [
            Pixels(start="normal"),
            *[Pixels(start="previous")] * 3,
        ]
        assert last == replace(usual[-1], total_variation=0.0, face_colors=0.0)
    asked = span_stages(fading=2)
    assert suited(asked, open_detail=False, coupled=True, pixels=12288) == asked


@pytest.mark.parametrize(("size", "finer"), [(112, 1), (224, 2)])
def test_large_images_are_searched_by_waves_there(size: int, finer: int) -> None:
    usual = [replace(stage, face_colors=0.3) for stage in span_stages()]
    waves, last = suited(usual, open_detail=False, coupled=True, pixels=3 * size**2)
    assert (waves.varies, waves.optimizer) == (CosineSpectrum(start="normal"), "adam")
    assert waves.total_variation == pytest.approx(3 * 1.75**2.5 * finer)
    assert (waves.face_colors, waves.colors_fade) == (0.3, True)
    assert last == replace(usual[-1], total_variation=0.0, face_colors=0.0)


def test_what_is_blurred_is_searched_for_by_waves_that_go_on_where_they_end_far_off() -> None:
    usual = [replace(stage, face_colors=0.3) for stage in span_stages()]
    waves, *further = suited(usual, open_detail=False, drifted=True, blurred=True, pixels=12288)
    assert waves.varies == CosineSpectrum(start="normal")
    assert not waves.colors_fade  # far from the update to the end
    assert [stage.lr / waves.lr for stage in further] == [0.5, 0.25]
    before = StageResult(torch.zeros(1, 1, 3, 8, 8))
    near, far = (
        cast(SpanMatching, SimpleNamespace(distance=lambda _, d=distance: d))
        for distance in (BLURRED_MISSED - 0.01, BLURRED_MISSED + 0.01)
    )
    for stage in further:
        assert stage.varies == CosineSpectrum(start="previous")
        assert is_left_out(stage, before, near)
        assert not is_left_out(stage, before, far)
        assert not is_left_out(replace(stage, if_missed=0.0), before, near)


def test_a_generator_keeps_its_turn_there() -> None:
    latent, *rest = span_stages()
    drawn_first = [replace(latent, varies=Latent()), *rest]
    first, waves, _ = suited(drawn_first, open_detail=False, coupled=True, pixels=12288)
    assert (first.varies, first.fading) == (Latent(), SPAN_FADING)
    assert waves.varies == CosineSpectrum(start="previous")


def test_the_colors_of_faces_fade_as_images_become_less_smooth() -> None:
    """What they give back of a photo's contrast spoils it once the update says more."""
    usual = [replace(stage, face_colors=0.3) for stage in span_stages()]
    first, *turns, last = suited(usual, open_detail=False, coupled=True, pixels=3 * 64**2)
    assert (first.face_colors, first.colors_fade, last.face_colors) == (0.3, False, 0.0)
    shares = [turn[4] / COUPLED_TURNS[0][4] for turn in COUPLED_TURNS]
    assert [stage.face_colors for stage in turns] == pytest.approx([0.3 * s for s in shares])
    assert all(stage.colors_fade for stage in turns)
    of_batch = suited(usual, open_detail=False, whole=True)
    assert all(stage.colors_fade for stage in of_batch)
    drifted = suited(usual, open_detail=False, drifted=True)  # far from the update to the end
    assert {(stage.face_colors, stage.colors_fade) for stage in drifted} == {(0.3, False)}

    images, turn = drawn(1), replace(turns[0], total_variation=0.0)
    full = float(turn.penalty(images, images))
    assert full == pytest.approx(0.3 * float(face_colors(images)))
    assert float(turn.penalty(images, images, left=0.5)) == pytest.approx(full / 4)
    steady = replace(turn, colors_fade=False)
    assert float(steady.penalty(images, images, left=0.5)) == pytest.approx(full)


@pytest.mark.parametrize("weights", [COLOR_WEIGHTS, MATCHING_COLOR_WEIGHTS])
def test_color_varies_more_than_brightness(weights: ColorWeights) -> None:
    gray = drawn(1)[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(color_variation(gray, weights), total_variation(gray) / 3**0.5)
    tinted = gray * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
    share = weights[1] * (2 / 3) ** 0.5  # of unit directions, two channels in place of three
    assert share > 1
    torch.testing.assert_close(
        color_variation(tinted, weights), share * color_variation(gray, weights)
    )
    assert torch.equal(color_variation(gray[:, :1], weights), total_variation(gray[:, :1]))


@pytest.mark.parametrize("preset", [gan_inversion, inverting_gradients, grad_inversion])
def test_weights_of_colors_beside_gradients_are_not_taken_to_spans(
    preset: Callable[[], MatchingAttack],
) -> None:
    stages = preset().stages
    assert any(stage.color_weights == MATCHING_COLOR_WEIGHTS for stage in stages)
    assert {stage.color_weights for stage in from_gray(stages)} == {None}
