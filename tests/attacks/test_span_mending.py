"""Where an image contradicts the update, and what mending leaves alone; colors' variation."""

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.adaptive.per_example import Gradients
from fedaudit.attacks.gathering.gather import Evidence, gather_inputs
from fedaudit.attacks.search.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.image_priors import (
    WithinRange,
    color_variation,
    face_colors,
    total_variation,
)
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching
from fedaudit.attacks.search.span_mending import HOPELESS, mend, misfit
from fedaudit.attacks.search.span_schedules import COUPLED_TURNS, POLISH_POWER, span_stages, suited
from fedaudit.attacks.search.trace import Trace
from fedaudit.attacks.search.variables import (
    ANEW,
    MENDED,
    OTHER_NOISE,
    Pixels,
    Scene,
    StageResult,
    images_of,
)
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.models import live_module
from fedaudit.models.facenet import criterion_of
from fedaudit.models.zoo import build

sys.path.insert(0, str(Path(__file__).parent))
from test_common_maps import drawn, network


def spans_of(count: int, *, normalized: bool) -> SpanMatching:
    model = network(normalized=normalized)
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(drawn(count)), torch.arange(count) % 5)
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    return spans_in(model, update, drawn(count))


def spans_in(model: nn.Module, update: dict[str, Tensor], images: Tensor) -> SpanMatching:
    evidence: Evidence = gather_inputs(seen_in(model, update, images))
    return SpanMatching(evidence)


def seen_in(model: nn.Module, update: dict[str, Tensor], images: Tensor) -> Observation:
    """What a server sees of a gradient of these images."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    count = len(images)
    return Observation(
        model=ModelSpec(live_module.FACTORY, {"module": model, "redrawn": ()}),
        before={name: value.detach() for name, value in state.items()},
        shared=(Update("gradient", update, count),),
        image_shape=(images.shape[1], images.shape[2], images.shape[3]),
        batch_size=count,
        num_classes=5,
        training=LocalTraining(batch_size=count, batch_norm="train" if model.training else "eval"),
    )


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


def test_color_varies_more_than_brightness() -> None:
    gray = drawn(1)[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(color_variation(gray), total_variation(gray) / 3**0.5)
    tinted = gray * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
    assert color_variation(tinted) > 2 * total_variation(tinted)
    assert torch.equal(color_variation(gray[:, :1]), total_variation(gray[:, :1]))


def sent(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """A client's gradient, of images that are all of class 0."""
    loss = F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long))
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


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
    monkeypatch.setattr(SearchRun, "_misses", lambda _self, _before, _distance: far)
    left, begun, begin = iter(distances), [], Pixels.begin
    monkeypatch.setattr(SearchRun, "_is_stuck", lambda _self, _before: SEEN < next(left) < HOPELESS)

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


@pytest.mark.parametrize(
    ("distance", "images", "steps"), [(0.2, 1, 6), (0.6, 1, 3), (0.02, 1, 6), (0.2, 2, 3)]
)
def test_one_photo_that_was_not_found_is_searched_from_other_noise(
    distance: float, images: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what noise in the update hides, nor a batch; what is nearer is mended."""
    monkeypatch.setattr(SpanMatching, "distance", lambda _self, _images: distance)
    monkeypatch.setattr(SpanMatching, "leaves_detail", False)
    begun, begin = [], Pixels.begin

    def noted(self: Pixels, scene: Scene, before: StageResult) -> list[Tensor]:
        begun.append(self)
        return begin(self, scene, before)

    monkeypatch.setattr(Pixels, "begin", noted)
    model = network(normalized=False)
    update = sent(model, drawn(images))
    rebuilt = fedaudit.attack(
        model,
        update,
        "subspace_matching",
        image_shape=(3, 16, 16),
        images=images,
        settings={"steps": 3, "polish": 0},
    )
    assert rebuilt.iterations == steps
    assert (OTHER_NOISE in begun) == (distance == 0.2 and images == 1)


@pytest.mark.parametrize(("distance", "searched"), [(0.1, True), (0.5, False)])
def test_waves_go_on_unless_noise_buries_the_photo(
    distance: float, searched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smooth search of a photo at 112 px ends as far off as 0.1, and waves bring it back."""
    begun: list[CosineSpectrum] = []
    begin = CosineSpectrum.begin

    def noted(self: CosineSpectrum, scene: Scene, before: StageResult) -> list[Tensor]:
        begun.append(self)
        return begin(self, scene, before)

    monkeypatch.setattr(CosineSpectrum, "begin", noted)
    monkeypatch.setattr(SpanMatching, "leaves_detail", True)
    monkeypatch.setattr(SpanMatching, "distance", lambda *_: distance)
    fedaudit.attack(
        network(normalized=False),
        sent(network(normalized=False), drawn(1)),
        "subspace_matching",
        image_shape=(3, 16, 16),
        settings={"steps": 3, "polish": 0},
    )
    assert bool(begun) == searched


@pytest.mark.parametrize(("distance", "turns"), [(5e-5, 1), (5e-4, 2), (0.01, 2), (0.5, 0)])
def test_waves_begin_anew_where_they_were_in_vain(
    distance: float, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what a search from other noise ended with, although that is no better."""
    begun: list[str] = []
    begin = CosineSpectrum.begin

    def noted(self: CosineSpectrum, scene: Scene, before: StageResult) -> list[Tensor]:
        spectra = begin(self, scene, before)
        begun.append(self.start)
        if self.start == "last":
            assert before.varied is not None
            assert not torch.equal(images_of(scene, before), before.images)
            pixels = self.decode(scene, spectra[0])
            torch.testing.assert_close(pixels, images_of(scene, before)[:, 0], atol=1e-5, rtol=0)
        return spectra

    monkeypatch.setattr(CosineSpectrum, "begin", noted)
    monkeypatch.setattr(SpanMatching, "leaves_detail", True)
    monkeypatch.setattr(SpanMatching, "distance", lambda *_: distance)
    monkeypatch.setattr(SpanMatching, "objective", _never_better())
    fedaudit.attack(
        network(normalized=False),
        sent(network(normalized=False), drawn(1)),
        "subspace_matching",
        image_shape=(3, 16, 16),
        settings={"steps": 3, "polish": 1},
    )
    assert begun == ["previous", "previous", "last", "last"][: 2 * turns]


def _never_better() -> Callable[[SpanMatching, Gradients, Tensor], Tensor]:
    """An objective by which each later stage is worse, whose slope is that of the distance."""
    calls = itertools.count()

    def objective(_self: SpanMatching, _dummy: Gradients, distance: Tensor) -> Tensor:
        return distance + next(calls)

    return objective


def test_pixels_beyond_the_range_are_held_back() -> None:
    assert float(WithinRange()(drawn(1))) == 0
    assert float(WithinRange(2.0)(torch.tensor([[1.5, -0.5]]))) == pytest.approx(0.5)


def test_waves_follow_a_smooth_search_where_spans_leave_detail_open() -> None:
    kept, faded = (suited(span_stages(), open_detail=blind) for blind in (True, False))
    search = [("adam", 0, 150, 2.0), ("adam", 2, 250, 1.0), ("lbfgs", 0, 49, 1e-3)]
    assert [(s.optimizer, s.fading, s.steps, s.total_variation) for s in kept] == 2 * search
    waves = [isinstance(stage.varies, CosineSpectrum) for stage in kept]
    assert waves == 2 * [False, True, True]
    assert [stage.if_missed for stage in kept] == 3 * [False] + [True] + 2 * [False]
    assert kept[4].lr == 2 * kept[1].lr
    for size, polish, times in (
        (64, 49, 2),
        (112, 49, 2),
        (160, 24, 1),
        (224, 14, 1),
        (448, 14, 1),
    ):
        large = suited(span_stages(), open_detail=True, pixels=3 * size**2)
        assert [stage.steps for stage in large] == times * [150, 250, polish]
    before = replace(span_stages(fading=2.0)[0], steps=7)
    assert suited((before, *span_stages()), open_detail=True) == (before, *kept)
    assert WithinRange() in kept[1].priors
    assert [(stage.optimizer, stage.fading) for stage in faded] == [
        *[("adam", 2)] * 2,
        *[("adam", 1), ("adam", 2)],  # from a coarse grid, where it is stuck
        ("lbfgs", 0),
    ]
    assert [(stage.steps, stage.total_variation) for stage in faded[:2]] == [(100, 1.0), (100, 0.5)]
    asked = span_stages(fading=1.5)
    assert suited(asked, open_detail=True) == suited(asked, open_detail=False) == asked


def test_behind_batch_norm_in_training_mode_images_are_held_smooth() -> None:
    """By more where there are more pixels; never by less than elsewhere; then less and less."""
    usual = span_stages(steps=10)
    small, middle = (
        suited(usual, open_detail=False, coupled_pixels=3 * size**2) for size in (16, 64)
    )
    shares = [1.0, *(turn[4] for turn in COUPLED_TURNS)]
    for (*stages, last), weight in ((small, 1), (middle, 6)):
        assert [s.total_variation for s in stages] == pytest.approx([weight * x for x in shares])
        assert {stage.optimizer for stage in stages} == {"adam"}
        assert [(s.steps, s.fading) for s in stages] == [(20, 1), (10, 2), (10, 2), (15, 2)]
        assert [stage.varies for stage in stages] == [
            Pixels(start="normal"),
            *[Pixels(start="previous")] * 3,
        ]
        assert (last.varies, last.optimizer) == (CosineSpectrum(power=POLISH_POWER), "lbfgs")
        assert (last.total_variation, last.face_colors) == (0, 0)
    open_detail = suited(usual, open_detail=True, coupled_pixels=3 * 64**2)
    assert [stage.varies for stage in open_detail] == [Pixels(start="normal"), MENDED]
    asked = span_stages(fading=2)
    assert suited(asked, open_detail=False, coupled_pixels=12288) == asked


def test_large_images_are_first_searched_on_coarse_grids_there() -> None:
    for size, grids in ((112, [2, 1]), (224, [4, 2, 1])):
        stages = suited(span_stages(lr=0.4), open_detail=False, coupled_pixels=3 * size**2)
        searches, turns = stages[: len(grids)], stages[len(grids) : -1]
        assert [stage.varies for stage in searches] == [
            Pixels(start="previous" if k else "normal", coarse=grid) for k, grid in enumerate(grids)
        ]
        first = searches[0].total_variation
        assert first == pytest.approx(6 * (49 / 64) ** 1.5)
        assert first is not None
        for k, stage in enumerate(searches):
            assert (stage.lr, stage.total_variation) == (0.4 / 2**k, first * 2**k)
        largest = first * 2 ** (len(grids) - 1)
        assert [stage.total_variation for stage in turns] == pytest.approx(
            [largest * turn[4] for turn in COUPLED_TURNS]
        )


def test_the_colors_of_faces_fade_as_images_become_less_smooth() -> None:
    """What they give back of a photo's contrast spoils it once the update says more."""
    usual = [replace(stage, face_colors=0.3) for stage in span_stages()]
    first, *turns, last = suited(usual, open_detail=False, coupled_pixels=3 * 64**2)
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


@pytest.mark.parametrize(
    ("training", "unit", "kept"), [(True, 1, "smooth"), (False, 1, "noise"), (True, 0.01, "noise")]
)
def test_of_one_photo_in_training_mode_noise_must_explain_much_more(
    training: bool, unit: float, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a fresh ResNet-18 noise is as much nearer to the spans than the face was by then.

    What explains an update as well as exact images do is none.
    """
    model = network(normalized=True).train(training)
    spans = spans_in(model, sent(model, drawn(1)), drawn(1))
    images = {"smooth": torch.full((1, 3, 16, 16), 0.5), "noise": torch.rand(1, 3, 16, 16)}
    far, near = 0.0078 * unit, 0.0065 * unit
    distances = iter((far, near))
    monkeypatch.setattr(SpanMatching, "objective", lambda *_: torch.tensor(next(distances)))
    run = SearchRun(Scene(spans.evidence, spans, torch.Generator()), (), Trace(2, None, None))
    for one in images.values():
        run._offer([one], lambda variable: variable)
    assert torch.equal(run.images[0], images[kept])
    assert float(run.best) == pytest.approx(far if kept == "smooth" else near)


def test_what_explains_an_update_gives_way_to_nothing_smoother(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, rough = network(normalized=True).train(), torch.rand(1, 3, 16, 16)
    spans = spans_in(model, sent(model, drawn(1)), drawn(1))
    distances = iter((9e-5, 2e-4))
    monkeypatch.setattr(SpanMatching, "objective", lambda *_: torch.tensor(next(distances)))
    run = SearchRun(Scene(spans.evidence, spans, torch.Generator()), (), Trace(2, None, None))
    for one in (rough, torch.full((1, 3, 16, 16), 0.5)):
        run._offer([one], lambda variable: variable)
    assert torch.equal(run.images[0], rough)


@pytest.mark.parametrize(("exact", "polished"), [(1.0, 1), (0.0, 4)])
def test_l_bfgs_ends_where_nothing_is_left(
    exact: float, polished: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.attacks.search.search_run.EXACT", exact)
    stages = span_stages(steps=3, mends=0, polish=4, fading=2.0)
    attack = MatchingAttack(stages=stages, match="spans")
    update = sent(network(normalized=False), drawn(1))
    rebuilt = fedaudit.attack(network(normalized=False), update, attack, image_shape=(3, 16, 16))
    assert rebuilt.iterations == 3 + polished


def test_a_coarse_grid_draws_no_fine_noise() -> None:
    model = network(normalized=True)
    update = sent(model, drawn(1))
    stage = replace(span_stages(steps=4, mends=0)[0], varies=Pixels(start="normal", coarse=4))
    attack = MatchingAttack(stages=(replace(stage, fading=1.0),), match="spans")
    rebuilt = fedaudit.attack(model, update, attack, image_shape=(3, 16, 16))
    fine = rebuilt.images - F.avg_pool2d(rebuilt.images, 3, 1, 1, count_include_pad=False)
    assert float(fine.std()) < 0.25 * float(rebuilt.images.std())


@pytest.mark.parametrize(
    ("name", "size", "open_detail"),
    [
        ("mobilefacenet", 112, True),
        ("face", 32, False),
        ("torchvision:resnet18", 64, False),
        ("torchvision:resnet18", 112, True),  # 28×28 maps have more positions than inputs
        ("vit_s", 64, False),  # its patches are the pixels
    ],
)
def test_how_much_spans_leave_open_is_counted(name: str, size: int, open_detail: bool) -> None:
    model = build(ModelSpec(name, {"classes": 5, "image_size": size})).eval()
    photo = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = criterion_of(model)(model(photo), torch.tensor([0]))
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    spans = spans_in(model, update, photo)
    assert spans.leaves_detail == open_detail
