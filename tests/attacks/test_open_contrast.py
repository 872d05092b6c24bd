"""Contrast that a normalization hides: given back from what faces have, and only there."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.image_priors import FACE_DEVIATION, exposure
from fedaudit.attacks.search.open_contrast import with_usual_contrast, with_usual_exposure

sys.path.insert(0, str(Path(__file__).parent))
from small_spans import spans_in


class Centered(nn.Module):
    """Images around 0, a convolution, and group norm or none."""

    def __init__(self, *, normalized: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.GroupNorm(2, 8) if normalized else nn.Identity()
        self.second, self.head = nn.Conv2d(8, 16, 3), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.leaky_relu(self.norm(self.first(2 * images - 1)))
        scores: Tensor = self.head(F.leaky_relu(self.second(maps)).mean((2, 3)))
        return scores


def photo() -> Tensor:
    """Smooth, as wide as faces usually are; `[1, 3, 10, 10]`."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, (10, 10), mode="bilinear")
    return (0.5 + (smooth - 0.5) * 0.2 / smooth.std()).clamp(0.02, 0.98)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_pale_image_gets_the_contrast_of_faces_where_the_update_hides_it(
    normalized: bool,
) -> None:
    torch.manual_seed(0)
    model, image = Centered(normalized=normalized), photo()
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(image), torch.tensor([1]))
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    spans = spans_in(model, update, image)
    pale = 0.5 + 0.3 * (image - 0.5)
    found = with_usual_contrast(spans, pale)
    if normalized:
        assert found.std() > 2 * pale.std()
        assert found.std() <= sum(FACE_DEVIATION) / 3 + 1e-3
        assert (found - image).abs().mean() < 0.2 * (pale - image).abs().mean()
        assert torch.equal(with_usual_contrast(None, pale), pale)
    else:
        assert torch.equal(found, pale)


def test_an_image_of_more_contrast_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    model = Centered(normalized=True)
    image = 0.5 + 1.4 * (photo() - 0.5)
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(image), torch.tensor([1]))
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    found = with_usual_contrast(spans_in(model, update, image), image.clamp(0, 1))
    assert (found - image.clamp(0, 1)).abs().max() < 1e-6


def test_a_pale_photo_whose_contrast_the_update_tells_weakly_stays_pale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model, pale = Centered(normalized=True), 0.5 + 0.5 * (photo() - 0.5)
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(pale), torch.tensor([1]))
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    spans = spans_in(model, update, pale)
    assert torch.equal(with_usual_contrast(spans, pale), pale)
    monkeypatch.setattr("fedaudit.attacks.search.open_contrast.TOLD", (0.9, 1.1, float("inf")))
    assert with_usual_contrast(spans, pale).std() > 1.2 * pale.std()


@pytest.mark.parametrize("normalized", [True, False])
def test_each_color_photo_of_a_face_gets_the_highlights_of_faces(normalized: bool) -> None:
    """Paler or stronger, each by itself; photos of anything else are left as they are."""
    torch.manual_seed(0)
    model, image = Centered(normalized=normalized), photo()
    image = (0.5 + exposure(image, 0.5) * (image - 0.5)).clamp(0, 1)
    images = torch.cat([image, image.flip(3)])
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(images), torch.tensor([1, 3]))
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    spans = spans_in(model, update, images)
    changed = 0.5 + torch.tensor([0.8, 1.2]).view(2, 1, 1, 1) * (images - 0.5)
    found = with_usual_contrast(spans, changed, of_faces=True)
    if normalized:
        assert (found - images).abs().mean() < 0.1 * (changed - images).abs().mean()
        assert torch.equal(with_usual_contrast(spans, changed), changed)
    else:
        assert torch.equal(found, changed)


class BatchNormed(nn.Module):
    """A convolution without bias, and batch norm, which hides the contrast in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 16, 3), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.leaky_relu(self.norm(self.first(images)))
        scores: Tensor = self.head(F.leaky_relu(self.second(maps)).mean((2, 3)))
        return scores


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("contrast", [0.6, 1.25])
def test_a_face_behind_batch_norm_gets_the_brightness_of_faces(
    contrast: float, training: bool
) -> None:
    """Paler or stronger, around black, which padding shows: where batch norm hides it alone."""
    torch.manual_seed(0)
    model, image = BatchNormed().train(training), photo()
    image = image * exposure(image)  # as bright as faces are
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(image), torch.tensor([1]))
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    spans = spans_in(model, update, image)
    found = with_usual_exposure(spans, contrast * image)
    if training:
        assert (found - image).abs().mean() < 0.02
    else:
        assert torch.equal(found, contrast * image)


@pytest.mark.parametrize(("training", "weight"), [(True, 0.3), (True, 0.0), (False, 0.3)])
def test_an_attack_on_faces_gives_that_brightness_where_batch_norm_hides_it(
    training: bool, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, image = BatchNormed().train(training), photo()
    asked: list[str] = []
    for name in ("with_usual_exposure", "with_usual_contrast"):

        def listen(_: object, images: Tensor, name: str = name, **of: bool) -> Tensor:
            assert of in ({}, {"of_faces": weight > 0})
            asked.append(name)
            return images

        monkeypatch.setattr(f"fedaudit.attacks.search.matching_attack.{name}", listen)
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(image), torch.tensor([1]))
    update = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    attack = subspace_matching(steps=2, polish=0, face_colors=weight)
    fedaudit.attack(model, update, attack, image_shape=(3, 10, 10))
    hidden = training and weight > 0
    assert asked == ["with_usual_exposure" if hidden else "with_usual_contrast"]
