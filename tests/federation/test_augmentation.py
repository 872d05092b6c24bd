"""Clients that change their photos at random before each step."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch

from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.core.capture import Capture
from fedaudit.core.client import ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.scenario import Study
from fedaudit.core.shared import Update
from fedaudit.federation.augmentation import TRANSFORMS, augment
from fedaudit.federation.local_training import train_locally
from fedaudit.models.build_network import build
from fedaudit.study.study_file import study_from_mapping

Intercept = Callable[..., Capture]


def drawn(kind: str, seed: int = 0) -> torch.Tensor:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return augment(images, [kind])  # type: ignore[list-item]


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_each_photo_is_changed_by_a_draw_of_its_own(kind: str) -> None:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    changed = drawn(kind)
    assert changed.shape == images.shape
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert torch.equal(changed, drawn(kind))
    assert not torch.equal(changed, drawn(kind, seed=3))
    if kind == "flip":
        flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(changed, images, strict=True)]
        kept = [torch.equal(a, b) for a, b in zip(changed, images, strict=True)]
        assert [a != b for a, b in zip(flipped, kept, strict=True)] == [True] * 6
        assert 0 < sum(flipped) < 6
    if kind == "jitter":  # it moves nothing: pixels of noise moved by one differ by a third
        assert float((changed - images).abs().mean()) < 0.15


def test_a_study_says_it_of_the_federation_and_of_the_audited_client() -> None:
    table = {
        "name": "a",
        "federation": {"augmentation": ["flip"]},
        "scenario": [{"name": "b", "augmentation": ["crop", "jitter"], "attacks": ["idlg"]}],
    }
    study: Study = study_from_mapping(table)
    (scenario,) = study.scenarios
    assert study.federation.training.augmentation == ("flip",)
    assert scenario.audited_training.augmentation == ("crop", "jitter")


@pytest.mark.parametrize("share", ["gradient", "delta"])
def test_the_network_sees_what_became_of_the_photo(
    share: Literal["gradient", "delta"], gradient_of: Callable[..., dict[str, torch.Tensor]]
) -> None:
    spec = ModelSpec("lenet", {"classes": 7, "image_size": 16})
    model = build(spec, seed=0)
    photo = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    label = torch.tensor([3])
    ways = [gradient_of(model, version, label) for version in (photo, photo.flip(-1))]
    seen = set()
    for seed in range(8):
        task = ClientTask(
            model=spec,
            before={name: p.detach() for name, p in model.named_parameters()},
            kept={},
            images=photo,
            labels=label,
            training=LocalTraining(lr=0.5, augmentation=("flip",)),
            share=share,
            generator=torch.Generator().manual_seed(seed),
        )
        (update, *_) = train_locally(task).shared
        assert isinstance(update, Update)
        scale = 1.0 if share == "gradient" else -0.5
        alike = [
            all(torch.allclose(update.tensors[n], scale * way[n], atol=1e-5) for n in way)
            for way in ways
        ]
        assert sum(alike) == 1
        seen.add(alike.index(True))
    assert seen == {0, 1}


def test_an_attack_says_that_photos_were_changed(intercept: Intercept) -> None:
    training = LocalTraining(augmentation=("flip", "crop"))
    found = subspace_matching(steps=2, polish=0, mends=0)(
        intercept(training=training).seen, generator=torch.Generator().manual_seed(0)
    )
    assert any("flip, crop" in one for one in found.unused)
    plain = subspace_matching(steps=2, polish=0, mends=0)(
        intercept().seen, generator=torch.Generator().manual_seed(0)
    )
    assert plain.unused == ()
