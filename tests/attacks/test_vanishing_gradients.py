"""Photos that a network in evaluation mode has nothing to learn of are counted and told."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.models.build_network import build

COUNT = 4


def small_network(*, classes: int, image_size: int) -> nn.Module:
    """The first half of torchvision's ResNet-18, in depth and in width."""
    del image_size
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        BasicBlock(64, 64),
        BasicBlock(64, 128, 2, nn.Sequential(nn.Conv2d(64, 128, 1, 2), nn.BatchNorm2d(128))),
        BasicBlock(128, 256, 2, nn.Sequential(nn.Conv2d(128, 256, 1, 2), nn.BatchNorm2d(256))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, classes),
    )


SPEC = ModelSpec(f"{__name__}:small_network", {"classes": 10, "image_size": 16})


def observation(faces: FaceSet, vanished: int, *, training: bool = False) -> Observation:
    """The gradient of four photos, of which some have none of their own."""
    images = faces.images[torch.arange(COUNT) * 10, :, ::2, ::2].expand(-1, 3, -1, -1)
    network = build(SPEC, seed=0).train(training)
    named = dict(network.named_parameters())
    each = F.cross_entropy(network(images), torch.arange(COUNT), reduction="none")
    gradients = torch.autograd.grad(each[: COUNT - vanished].sum() / COUNT, list(named.values()))
    return Observation(
        SPEC,
        {name: value.detach().clone() for name, value in network.state_dict().items()},
        (Update("gradient", dict(zip(named, gradients, strict=True)), COUNT),),
        (3, 16, 16),
        COUNT,
        10,
        training=LocalTraining(batch_size=COUNT, batch_norm="train" if training else "eval"),
        defense=(),
    )


def attacked(seen: Observation) -> Reconstruction:
    attack = subspace_matching(steps=1, polish=0, mends=0)
    return attack(seen, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("vanished", [1, 2])
def test_photos_without_gradient_are_not_searched_for(faces: FaceSet, vanished: int) -> None:
    seen = observation(faces, vanished)
    found = attacked(seen)
    loud = COUNT - vanished
    assert found.images.shape == (COUNT, 3, 16, 16)
    assert (found.images[loud:] == 0.5).all()
    assert found.labels[loud:].tolist() == [-1] * vanished
    assert sorted(found.labels[:loud].tolist()) == list(range(loud))
    assert any(f"is of {loud} of the {COUNT} images" in part for part in found.unused)
    # The rest is what comes back of a batch of those that contribute.
    alone = {n: t * (COUNT / loud) for n, t in seen.update.tensors.items()} if seen.update else {}
    other = replace(seen, batch_size=loud, shared=(Update("gradient", alone, loud),))
    other = replace(other, training=LocalTraining(batch_size=loud, batch_norm="eval"))
    assert torch.equal(attacked(other).images, found.images[:loud])
    assert not any("even gray" in part for part in attacked(other).unused)


def test_granted_labels_say_whose_photos_have_no_gradient(faces: FaceSet) -> None:
    found = attacked(replace(observation(faces, 1), labels=torch.arange(COUNT)))
    assert sorted(found.labels.tolist()) == list(range(COUNT))
    assert int(found.labels[-1]) == COUNT - 1


def test_a_photo_of_a_millionth_of_the_gradient_does_not_contribute(faces: FaceSet) -> None:
    loud, all_of_them = observation(faces, 1), observation(faces, 0)
    assert loud.update is not None
    assert all_of_them.update is not None
    faint = {
        name: value + 1e-7 * (all_of_them.update.tensors[name] - value)
        for name, value in loud.update.tensors.items()
    }
    found = attacked(replace(loud, shared=(Update("gradient", faint, COUNT),)))
    assert any("even gray" in part for part in found.unused)


def test_all_are_searched_for_where_all_contribute_or_nobody_can_tell(faces: FaceSet) -> None:
    several = LocalTraining(batch_size=COUNT, batch_norm="eval", steps=2)
    decayed = LocalTraining(batch_size=COUNT, batch_norm="eval", weight_decay=1e-3)
    for seen in (
        observation(faces, 0),
        observation(faces, 0, training=True),
        *(
            replace(one, shared=(replace(one.update, kind="delta"),), training=training)
            for one in [observation(faces, 1)]
            for training in (several, decayed)
            if one.update is not None
        ),
    ):
        found = attacked(seen)
        assert not any("even gray" in part for part in found.unused)
        assert not (found.images == 0.5).all((1, 2, 3)).any()
