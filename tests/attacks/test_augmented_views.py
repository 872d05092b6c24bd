"""Photos changed at random in each epoch: views are searched for, and one a photo is returned."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.augmented_views import begin_of_views, of_views, one_a_photo
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.core.observation import LocalTraining, Observation

sys.path.insert(0, str(Path(__file__).parent))
from test_common_maps import drawn
from test_simulated_misfit import TWO_EPOCHS, seen_of, trained_on
from test_unmixed_maps import network

CHANGED = replace(TWO_EPOCHS, augmentation=("flip",))


def views() -> Tensor:
    """Of four photos, as each of two epochs has them: `[2, 4, C, H, W]`."""
    photos = drawn(4)
    return torch.stack([photos, photos.flip(3)])


@pytest.fixture(scope="module")
def seen() -> Observation:
    model = network()
    return seen_of(model, trained_on(model, drawn(4), CHANGED, views()), CHANGED)


def begun(seen: Observation, *, of_photos: bool = False) -> SearchRun:
    """A search, ready."""
    generator = torch.Generator().manual_seed(0)
    attack = subspace_matching(steps=2, polish=0)

    def begin(one: Observation) -> SearchRun:
        return attack._begin(one, generator, 0.0)

    return begin(seen) if of_photos else begin_of_views(begin, seen, generator)


def test_every_view_is_an_image_of_one_epoch(seen: Observation) -> None:
    wide = of_views(seen)
    assert wide is not None
    assert wide.batch_size == 8
    assert wide.training == CHANGED
    run = begun(seen)
    assert run.scene.evidence.count == 8
    assert run.scene.evidence.followed is not None
    assert any("augment" in one or "changed" in one for one in run.scene.evidence.unused)


@pytest.mark.parametrize(
    "training",
    [
        None,
        TWO_EPOCHS,
        replace(CHANGED, steps=2),
        replace(CHANGED, steps=3),
        replace(CHANGED, batch_size=3),
        replace(CHANGED, optimizer="adam"),
    ],
    ids=["unknown", "not changed", "one epoch", "cut short", "two sizes", "Adam"],
)
def test_else_they_are_left_as_photos(seen: Observation, training: LocalTraining | None) -> None:
    assert of_views(replace(seen, training=training)) is None


def test_one_epoch_is_followed_though_it_changes_photos() -> None:
    model, once = network(), replace(CHANGED, steps=2)
    evidence = gather_inputs(seen_of(model, trained_on(model, drawn(4), once), once))
    assert evidence.count == 4
    assert evidence.followed is not None


def test_views_that_cannot_be_told_apart_are_photos_again(
    seen: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_before = begun(seen, of_photos=True).scene.generator.get_state()
    monkeypatch.setattr("fedaudit.attacks.search.mini_batches.LARGEST", 4)
    run = begun(seen)
    assert run.scene.evidence.count == 4
    assert torch.equal(run.scene.generator.get_state(), drawn_before)


def test_views_of_the_first_epoch_are_returned(seen: Observation) -> None:
    spans = begun(seen).scene.leading
    assert spans is not None
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    both, labels = views().flatten(0, 1)[shuffled], torch.arange(4).repeat(2)[shuffled]
    assert spans.follow(both)
    images, own = one_a_photo(spans, both, labels, 4)
    order = own.argsort()
    assert torch.equal(own[order], torch.arange(4))
    assert torch.equal(images[order], views()[0])


def test_those_that_the_update_would_miss_most_where_epochs_are_not_known(
    seen: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans, both = begun(seen).scene.leading, views().flatten(0, 1)
    assert isinstance(spans, SpanMatching)
    missed = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.7, 0.3, 0.6, 0.0])
    monkeypatch.setattr("fedaudit.attacks.search.augmented_views.rises_without", lambda *_: missed)
    images, labels = one_a_photo(spans, both, torch.arange(8), 4)
    assert labels.tolist() == [1, 3, 4, 6]
    assert torch.equal(images, both[labels])
    assert one_a_photo(None, both, labels, 4)[0] is both
    assert one_a_photo(spans, both[:4], labels, 4)[0].shape == both[:4].shape


def test_as_many_images_as_photos_come_back(seen: Observation) -> None:
    attack = subspace_matching(steps=4, polish=0)
    found = attack(seen, generator=torch.Generator().manual_seed(0))
    assert len(found.images) == len(found.labels) == 4
    assert any("what the network saw" in one for one in found.unused)
