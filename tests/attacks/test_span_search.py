"""When searches by spans begin anew, what they keep, and where they end."""

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fedaudit
from fedaudit.attacks.adaptive.per_example import Gradients
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.scene import Scene, StageResult, images_of
from fedaudit.attacks.search.schedules import suited
from fedaudit.attacks.search.schedules.span_stages import span_stages
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching
from fedaudit.attacks.search.trace import Trace
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.variables.pixels import OTHER_NOISE, Pixels
from fedaudit.core.observation import ModelSpec
from fedaudit.data.openpeople import openpeople
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of
from fedaudit.scoring.image_metrics import SSIM

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import sent, spans_in
from test_common_maps import drawn, network


@pytest.mark.parametrize(
    ("distance", "images", "steps"), [(0.2, 1, 30), (0.6, 1, 3), (0.02, 1, 30), (0.2, 2, 3)]
)
def test_one_photo_that_was_not_found_is_searched_from_other_noise(
    distance: float, images: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then by waves, twice; not what noise in the update hides, nor a batch; nearer is mended."""
    monkeypatch.setattr(SpanMatching, "distance", lambda _self, _images: distance)
    monkeypatch.setattr(SpanMatching, "leaves_detail", False)
    begun, begin = [], Pixels.begin

    def noted(self: Pixels, scene: Scene, before: StageResult) -> list[Tensor]:
        begun.append(self)
        return begin(self, scene, before)

    monkeypatch.setattr(Pixels, "begin", noted)
    waves = _note_waves(monkeypatch)
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
    begins = ["normal", "normal", "reordered", "reordered"] if steps == 30 else []
    assert [one.start for one, *_ in waves] == begins


@pytest.mark.parametrize(("distance", "turns"), [(5e-5, 1), (5e-4, 2), (0.01, 2), (0.5, 0)])
def test_waves_begin_anew_where_they_were_in_vain(
    distance: float, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From other noise, polished although it is no better; not what noise in the update buries."""
    begun = _note_waves(monkeypatch)
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
    starts = ["normal", "previous", "normal", "last"][: 2 * turns] or ["normal"]
    assert [waves.start for waves, *_ in begun] == starts
    if turns == 2:
        (waves, scene, _, first), _, (*_, anew), (last, _, before, spectra) = begun
        assert float(waves.decode(scene, first[0]).std()) > 0.15
        assert not torch.allclose(first[0], anew[0])
        assert before.varied == waves
        ended = images_of(scene, before)
        assert not torch.equal(ended, before.images)
        pixels = last.decode(scene, spectra[0])
        torch.testing.assert_close(pixels, ended[:, 0], atol=1e-5, rtol=0)


def _note_waves(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[CosineSpectrum, Scene, StageResult, list[Tensor]]]:
    """Searches by waves as they begin, after what, and from which spectra."""
    begun = []
    begin = CosineSpectrum.begin

    def noted(self: CosineSpectrum, scene: Scene, before: StageResult) -> list[Tensor]:
        spectra = begin(self, scene, before)
        begun.append((self, scene, before, [one.detach().clone() for one in spectra]))
        return spectra

    monkeypatch.setattr(CosineSpectrum, "begin", noted)
    return begun


def _never_better() -> Callable[[SpanMatching, Gradients, Tensor], Tensor]:
    """An objective by which each later stage is worse, whose slope is that of the distance."""
    calls = itertools.count()

    def objective(_self: SpanMatching, _dummy: Gradients, distance: Tensor) -> Tensor:
        return distance + next(calls)

    return objective


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


@pytest.mark.slow  # two whole searches through a stock network or more, a minute each
def test_the_last_resort_finds_a_photo_that_noise_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of p01, by which it was chosen; benchmarks report on others.

    Of five noises it mended three on one machine, from 0.86 to 0.94: which, the last bits of a
    slope decide.
    """
    faces = openpeople(size=64)
    photo = faces.images[faces.people.index("p01")][None]
    model = build(ModelSpec("torchvision:resnet18", {"classes": 10, "image_size": 64}), seed=0)
    clean = sent(model.eval(), photo)
    mended = False
    for seed in (7, 8, 9):
        torch.manual_seed(seed)
        update = {
            name: value + 0.005 * value.std(unbiased=False) * torch.randn_like(value)
            for name, value in clean.items()
        }  # with 0.003 the first search finds it by itself, or not, by the last bits likewise
        near = []
        for reached in (SEEN, 1.0):  # 1: never, as no image is farther
            monkeypatch.setattr(suited, "SEEN", reached)
            rebuilt = fedaudit.attack(model, update, "subspace_matching", image_shape=(3, 64, 64))
            near.append(float(SSIM()(photo, rebuilt.images)))
        assert near[0] > near[1] - 0.01
        mended = near[0] > max(0.9, near[1] + 0.03)
        if mended:
            break
    assert mended
