"""Dead units leave as many zeros as pruning does, but other ones: only defenses are called so."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.defense_replay import replay_of
from fedaudit.attacks.adaptive.estimation import estimate
from fedaudit.attacks.adaptive.sparsity import zeros_of
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.observation import DefenseFacts, ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.defenses.gradient_transforms import in_order, keep_inputs
from fedaudit.defenses.soteria import Soteria, defended_layer
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of
from fedaudit.models.library_networks import FACTORY

CLASSES = 10


def pooled_cnn(classes: int) -> nn.Module:
    """Two convolutions, three fully connected layers: what tutorials begin with."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def without_biases(classes: int) -> nn.Module:
    """Nothing but matrices and kernels."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 64, bias=False),
        nn.ReLU(),
        nn.Linear(64, classes, bias=False),
    )


def dense(classes: int) -> nn.Module:
    """Pixels into layers with ReLU."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3072, 100),
        nn.ReLU(),
        nn.Linear(100, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def narrow(classes: int) -> nn.Module:
    """One large layer, whose gradient is that of pixels, which have 256 levels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 20), nn.ReLU(), nn.Linear(20, classes))


def of_library(name: str) -> ModelSpec:
    return ModelSpec(FACTORY, {"name": f"torchvision:{name}", "arguments": {"num_classes": 10}})


NETWORKS = {
    "pooled CNN": ModelSpec(f"{__name__}:pooled_cnn", {"classes": CLASSES}),
    "without biases": ModelSpec(f"{__name__}:without_biases", {"classes": CLASSES}),
    "dense": ModelSpec(f"{__name__}:dense", {"classes": CLASSES}),
    "narrow": ModelSpec(f"{__name__}:narrow", {"classes": CLASSES}),
    "mlp": ModelSpec("mlp", {"classes": CLASSES}),
    "lenet": ModelSpec("lenet", {"classes": CLASSES}),
    "resnet18": of_library("resnet18"),
    "mobilenet_v2": of_library("mobilenet_v2"),
    "squeezenet1_1": of_library("squeezenet1_1"),
}
NORMED = ("resnet18", "mobilenet_v2")
"""Whose batch norm takes no single image at 32 px."""
RELU = ("pooled CNN", "without biases", "dense", "mlp")


def update_of(
    network: str,
    count: int,
    faces: FaceSet,
    defense: str = "none",
    settings: Mapping[str, Any] | None = None,
) -> Observation:
    """What a client of `network` sends of `count` photos."""
    spec = NETWORKS[network]
    model = build(spec)
    named = dict(model.named_parameters())
    before = {n: v.detach().clone() for n, v in (*named.items(), *model.named_buffers())}
    images = faces.images[::10][:count]
    loss = criterion_of(model)(model(images), torch.arange(count))
    sent = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    batch = {name: value[None] for name, value in sent.items()}
    drawn = torch.Generator().manual_seed(0)
    if defense == "soteria":
        model.eval()
        kept = Soteria(**settings or {}).kept(model, images, drawn)
        batch = keep_inputs(f"{defended_layer(model)}.weight", kept)(batch, drawn)
    else:
        transforms = replay_of((DefenseFacts(defense, settings or {}),), count).mean
        batch = in_order(transforms, batch, drawn)
    return Observation(
        model=spec,
        before=before,
        shared=(Update("gradient", {n: v[0] for n, v in batch.items()}, count),),
        image_shape=(images.shape[1], images.shape[2], images.shape[3]),
        batch_size=count,
        num_classes=CLASSES,
    )


def tensors_of(seen: Observation) -> Mapping[str, Tensor]:
    assert seen.update is not None
    return seen.update.tensors


@pytest.mark.parametrize("network", NETWORKS)
def test_an_ordinary_network_is_called_nothing(network: str, faces: FaceSet) -> None:
    for count in (2, 4) if network in NORMED else (1, 2, 4):
        assert estimate(update_of(network, count, faces)) == ()


@pytest.mark.parametrize("network", RELU)
def test_what_would_have_been_called_pruned_is_mostly_zeros(network: str, faces: FaceSet) -> None:
    assert zeros_of(tensors_of(update_of(network, 1, faces))) > 0.4


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("network", RELU)
@pytest.mark.parametrize(
    ("defense", "settings", "called"),
    [
        ("sign", {}, {"sign"}),
        ("qsgd", {"levels": 4, "bucket": 512}, {"qsgd"}),
        ("qsgd", {"levels": 8, "bucket": 256}, {"qsgd"}),
        ("top_k", {"pruned": 0.95}, {"top_k"}),
        ("random_pruning", {"pruned": 0.5}, {"random_pruning"}),
        ("random_pruning", {"pruned": 0.9}, {"random_pruning"}),
        ("dual_pruning", {}, {"top_k", "random_pruning"}),  # which ends were cut does not show
        ("gaussian_noise", {"std": 1.0, "of": "norm"}, {"gaussian_noise"}),
        ("soteria", {"pruned": 0.3}, {"soteria"}),
        ("soteria", {"pruned": 0.6}, {"soteria"}),
    ],
)
def test_defenses_show_among_dead_units(
    network: str,
    count: int,
    defense: str,
    settings: Mapping[str, Any],
    called: set[str],
    faces: FaceSet,
) -> None:
    found = estimate(update_of(network, count, faces, defense, settings))
    assert [one.name in called for one in found] == [True]
    if defense == "soteria":  # of the live ones, of which no more can be masked than there are
        assert 0.15 < found[0].settings["pruned"] < settings["pruned"] + 0.15


def test_a_layer_that_is_masked_as_a_whole_tells_nothing(faces: FaceSet) -> None:
    """Soteria's choice and the dead units leave nothing: labels and gradients are still read."""
    seen = update_of("pooled CNN", 1, faces, "soteria", {"pruned": 0.9})
    assert not bool(tensors_of(seen)["7.weight"].any())
    evidence = gather(seen)
    assert evidence.adaptation.sparse
    assert evidence.first_fc is None
    assert evidence.labels is not None
    assert evidence.labels.tolist() == [0]


def test_reading_a_large_update_takes_little_time(faces: FaceSet) -> None:
    """11 million numbers; each of nine buckets of each parameter was gone through: 3 s."""
    seen = update_of("resnet18", 4, faces)
    started = time.process_time()
    estimate(seen)
    plain = time.process_time() - started
    assert plain < 1.5
    quantized = update_of("resnet18", 4, faces, "qsgd", {})
    assert [one.name for one in estimate(quantized)] == ["qsgd"]


def test_frozen_layers_are_not_pruned(faces: FaceSet) -> None:
    seen = update_of("dense", 2, faces)
    sent = {n: v * (not n.startswith("1.")) for n, v in tensors_of(seen).items()}
    assert estimate(replace(seen, shared=(Update("gradient", sent, 2),))) == ()
