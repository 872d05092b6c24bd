"""Which label goes with which image, where the head normalizes its class centers."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F

from fedaudit.attacks.evidence.labels.of_images import labels_of_images
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, criterion_of

LABELS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3])


@pytest.mark.parametrize("head", ["cosface", "arcface"])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_centers_near_the_photos_do_not_confuse_labels(head: str, scale: float) -> None:
    """What is near the centers of two absent classes is taken from these rows of the gradient."""
    spec = ModelSpec("face", {"classes": 20, "image_size": 32, "head": head})
    model = build(spec, seed=0)
    assert isinstance(model, FaceNet)
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(len(LABELS), 3, 8, 8, generator=generator)
    images = F.interpolate(noise, (32, 32), mode="bilinear")
    with torch.no_grad():
        seen = F.normalize(model.embedding(model.features(images)))
        model.head.weight[15:17] = scale * seen[[0, 5]]
    named = dict(model.named_parameters())
    loss = criterion_of(model)(model(images), LABELS)
    gradients = torch.autograd.grad(loss, list(named.values()))
    target = dict(zip(named, gradients, strict=True))
    reading = SimpleNamespace(
        model=model, target=target, count=len(LABELS), shape=(3, 32, 32), private=()
    )
    assert labels_of_images(cast("Reading", reading), images).equal(LABELS)
