"""Contrast and brightness from the whole gradient; images as cosine waves."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.search.color_fit import fit_colors
from fedaudit.attacks.search.scene import Scene, StageResult
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum
from fedaudit.core.observation import Observation

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import seen_in


def blind_network() -> nn.Module:
    """Convolutions without bias, norms that scale: inputs keep their directions under contrast."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32)):
        convolution = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.PReLU()]
    return nn.Sequential(_Centered(), *layers, nn.Flatten(), nn.Linear(32 * 16, 5)).eval()


class _Centered(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        """Around 0."""
        return 2 * images - 1


def photos(count: int) -> Tensor:
    """Smooth images with values well inside of [0, 1]."""
    noise = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return 0.3 + 0.4 * F.interpolate(noise, (16, 16), mode="bilinear")


LABELS = torch.tensor([2, 4])


def update_of(model: nn.Module, images: Tensor, labels: Tensor) -> Observation:
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(images), labels)
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    return seen_in(model, update, images)


def fitted_to(seen: Observation, images: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Images with the colors that explain what was seen, and how many gradients that took."""
    spent: list[int] = [0]
    fitted = fit_colors(seen, SpanMatching(gather_inputs(seen)), images, labels, spent)
    return fitted, sum(spent)


def recolored(images: Tensor) -> Tensor:
    gain = torch.tensor([0.8, 0.9, 0.85]).view(3, 1, 1)
    return 0.5 + gain * (images - 0.5) + torch.tensor([0.03, -0.02, 0.0]).view(3, 1, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_colors_of_every_photo_come_back(count: int) -> None:
    true, labels = photos(count), LABELS[:count]
    fitted, spent = fitted_to(update_of(blind_network(), true, labels), recolored(true), labels)
    before = (recolored(true) - true).abs().flatten(1).mean(1)
    after = (fitted - true).abs().flatten(1).mean(1)
    assert bool((after < 0.3 * before).all())
    assert spent > 13 * count


def test_contrast_that_norms_hide_is_not_made_up() -> None:
    """Noise would be explained by it: without `FLOOR` the error rises to six times what it was."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32)):
        convolution = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        layers += [convolution, nn.GroupNorm(4, outputs, affine=False), nn.PReLU()]
    model = nn.Sequential(_Centered(), *layers, nn.Flatten(), nn.Linear(32 * 16, 5)).eval()
    true = photos(2)
    noise = 0.01 * torch.randn(true.shape, generator=torch.Generator().manual_seed(3))
    noisy = true + noise
    fitted, _ = fitted_to(update_of(model, true, LABELS), noisy, LABELS)
    assert float((fitted - true).abs().mean()) < 2 * float(noise.abs().mean())


def test_what_explains_the_update_and_what_is_not_known_stays() -> None:
    true, labels = photos(1), LABELS[:1]
    seen = update_of(blind_network(), true, labels)
    assert torch.equal(fitted_to(seen, true, labels)[0], true)
    wrong, spans = recolored(true), SpanMatching(gather_inputs(seen))
    assert seen.update is not None
    assert seen.training is not None
    adaptation = replace(spans.evidence.adaptation, signs=True, bent=True)
    bent = SpanMatching(replace(spans.evidence, adaptation=adaptation))
    several = replace(
        seen,
        shared=(replace(seen.update, kind="delta"),),
        training=replace(seen.training, steps=2),
    )
    hidden = update_of(blind_network().train(), photos(2), LABELS)
    for images, spent in (
        fitted_to(seen, wrong, torch.tensor([-1])),
        (fit_colors(seen, bent, wrong, labels, []), 0),
        fitted_to(several, wrong, labels),
        fitted_to(hidden, recolored(photos(2)), LABELS),
    ):
        assert spent == 0
        assert torch.equal(images, recolored(photos(len(images))))


def test_the_distance_of_images_that_are_all_wrong_does_not_grow() -> None:
    """A fit that brings nothing is not taken."""
    labels = LABELS[:1]
    seen = update_of(blind_network(), photos(1), labels)
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    fitted, _ = fitted_to(seen, noise, labels)
    sent = gather_inputs(seen).target

    def apart(images: Tensor) -> float:
        dummy = gather_inputs(update_of(blind_network(), images, labels)).target
        pairs = [(dummy[n].flatten(), sent[n].flatten()) for n in dummy]
        one = torch.cat([a / b.norm() for a, b in pairs])
        two = torch.cat([b / b.norm() for _, b in pairs])
        return 1 - float(F.cosine_similarity(one, two, dim=0))

    assert apart(fitted) <= apart(noise)


def test_subspace_matching_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, true = blind_network(), photos(1)
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(true), LABELS[:1])
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    asked = []

    def heard(
        _: Observation, __: SpanMatching, images: Tensor, labels: Tensor, ___: list[int]
    ) -> Tensor:
        asked.append(labels.tolist())
        return torch.zeros_like(images)

    target = "fedaudit.attacks.search.matching_attack.fit_colors"
    monkeypatch.setattr(target, heard)
    settings = {"steps": 2, "polish": 0}
    rebuilt = fedaudit.attack(
        model, update, "subspace_matching", image_shape=(3, 16, 16), settings=settings
    )
    assert asked == [[2]]
    assert not rebuilt.images.any()


@pytest.mark.parametrize(("height", "width", "free"), [(16, 16, 3), (7, 12, 3), (8, 8, 1)])
def test_waves_draw_the_images_that_they_came_from(height: int, width: int, free: int) -> None:
    evidence = SimpleNamespace(free_shape=(free, height, width), shape=(3, height, width))
    scene = cast(Scene, SimpleNamespace(evidence=evidence))
    images = torch.rand(2, 4, 3, height, width, generator=torch.Generator().manual_seed(0))
    images = images if free == 3 else images[:, :, :1].expand_as(images)
    spectra = CosineSpectrum().begin(scene, StageResult(images))
    assert [one.shape for one in spectra] == [(2, free, height, width)] * 4
    drawn = CosineSpectrum().decode(scene, torch.stack([one[0] for one in spectra]))
    torch.testing.assert_close(drawn, images[0], atol=1e-5, rtol=0)


def test_a_step_moves_coarse_waves_by_more_than_fine_ones() -> None:
    evidence = SimpleNamespace(free_shape=(1, 16, 16), shape=(1, 16, 16))
    scene = cast(Scene, SimpleNamespace(evidence=evidence))
    coarse, fine = torch.zeros(2, 1, 1, 16, 16).unbind(0)
    coarse[..., 0, 1], fine[..., 15, 15] = 1.0, 1.0
    moved = [(CosineSpectrum().decode(scene, one) - 0.5).square().mean() for one in (coarse, fine)]
    assert float(moved[0] / moved[1]) == pytest.approx(((1 + 450**0.5) / 2) ** 2, rel=1e-3)
    everything = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert 0.3 < float((CosineSpectrum().decode(scene, everything) - 0.5).std()) < 3


def test_colors_that_leave_the_spans_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    true, labels = photos(1), LABELS[:1]
    seen, wrong = update_of(blind_network(), true, labels), recolored(true)

    def nearer_before(_: SpanMatching, images: Tensor) -> float:
        return 0.1 if torch.equal(images, wrong) else 0.2

    monkeypatch.setattr(SpanMatching, "distance", nearer_before)
    fitted, spent = fitted_to(seen, wrong, labels)
    assert torch.equal(fitted, wrong)
    assert spent > 13
