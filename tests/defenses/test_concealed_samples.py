"""DCS: samples unlike their photo whose gradients are like its, and who trains on them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.client_network import image_gradients
from fedaudit.defenses.concealed_samples import ConcealedSamples
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of
from fedaudit.models.soft_labels import loss_on, probabilities

Federate = Callable[..., Simulation]


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_images_own_gradient_is_autograds(
    faces: Any, gradient_of: Callable[..., dict[str, Tensor]]
) -> None:
    model = build(ModelSpec("face", {"classes": 5}))
    images, labels = faces.images[[3, 60]], torch.tensor([4, 0])
    found, scores = image_gradients(model, images, labels)
    for k in range(2):
        each = gradient_of(model, images[k : k + 1], labels[k : k + 1])
        by_hand = torch.cat([value.flatten() for value in each.values()])
        torch.testing.assert_close(found[k], by_hand, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(scores, model(images).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_samples_imitate_gradients_not_looks(faces: Any) -> None:
    """By plain autograd: a cosine over 0.3 that the start has not, at an RMS distance over 0.2."""
    model = build(ModelSpec("face", {"classes": 30})).eval()
    photos, others = faces.images[[0]], faces.images[[300]]
    labels, theirs = probabilities(torch.tensor([0]), 30), probabilities(torch.tensor([4]), 30)
    defense = ConcealedSamples()
    start, marks = 0.7 * others + 0.3 * photos, 0.7 * theirs + 0.3 * labels
    samples, told = defense.search(model, photos, labels, start, marks)
    assert float(samples.min()) >= 0
    assert float(samples.max()) <= 1
    parameters = list(model.parameters())

    def flat(image: Tensor, label: Tensor) -> Tensor:
        loss = loss_on(criterion_of(model), model(image[None]), label[None])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    own = flat(photos[0], labels[0])
    before, after = (
        float(torch.cosine_similarity(flat(image[0], marks[0]), own, dim=0))
        for image in (start, samples)
    )
    assert after == pytest.approx(float(told[0]), abs=1e-3)
    assert before < 0.3 < after
    assert float((start - photos).square().mean().sqrt()) < 0.2
    assert float((samples - photos).square().mean().sqrt()) > 0.2


def test_each_photo_trains_beside_its_samples(
    federate: Federate, gradient_of: Callable[..., dict[str, Tensor]]
) -> None:
    """The update is the mean of two gradients; the samples alone give the rest of it."""
    settings = {"iterations": 3, "each": 2}
    simulation = federate(network="face", defense="concealed_samples", settings=settings)
    photos = simulation.split.photos[0][:1]
    state = simulation.fresh()
    returned = simulation.step(state, 0, photos, LocalTraining(), noise())
    again = simulation.step(state, 0, photos, LocalTraining(), noise())
    (sent,) = (s for s in returned.shared if isinstance(s, Update))
    (same,) = (s for s in again.shared if isinstance(s, Update))
    assert all(torch.equal(sent.tensors[n], v) for n, v in same.tensors.items())
    assert sent.examples == 3
    assert returned.labels is not None
    own = simulation.label_of(0, photos[0])
    assert returned.labels[0] == own
    assert returned.labels.shape == (3,)
    model = build(simulation.spec(0), state.server)
    alone = gradient_of(model, simulation.faces.images[list(photos)], torch.tensor([own]))
    rest = torch.cat([(3 * sent.tensors[n] - g).flatten() for n, g in alone.items()])
    mine = torch.cat([g.flatten() for g in alone.values()])
    assert 0 < float(torch.cosine_similarity(rest, mine, dim=0)) < 0.99


def test_the_network_that_is_imitated_is_the_one_that_trains(federate: Federate) -> None:
    """A head that the server never sent is the same in the search and in training."""
    heads = []

    def step(task: Any) -> Any:
        heads.append(task.kept["head.weight"])
        raise StopIteration

    simulation = federate(network="face", defense="private_projector")
    asked = replace(simulation, defense=_Within(ConcealedSamples(iterations=1), step, simulation))
    with pytest.raises(StopIteration):
        asked.step(simulation.fresh(), 0, simulation.split.photos[0][:1], LocalTraining(), noise())
    seed = int(torch.randint(2**62, (1,), generator=noise()))
    drawn = build(simulation.spec(0), simulation.fresh().server, seed=seed)
    assert torch.equal(heads[0], drawn.get_parameter("head.weight"))


class _Within:
    """A defense around `step`, with the public facts of a simulation's own."""

    def __init__(self, defense: Any, step: Any, simulation: Simulation) -> None:
        self.defense, self.step, self.own = defense, step, simulation.defense

    def __call__(self, step: Any) -> Any:
        return self.defense(self.step)

    def facts(self) -> Any:
        return self.own.facts()


@pytest.mark.parametrize("method", ["fedaffect", "solomon_woubie"])
def test_photos_without_labels_cannot_be_concealed(method: str, federate: Federate) -> None:
    settings = {"supervised": False} if method == "solomon_woubie" else {}
    simulation = federate(network="face", defense="concealed_samples")
    simulation = replace(simulation, method=create("methods", method, settings))
    with pytest.raises(ConfigError, match="oasis or ats"):
        simulation.step(
            simulation.fresh(), 0, simulation.split.photos[0][:2], LocalTraining(), noise()
        )


def test_a_client_with_one_photo_starts_from_noise(faces: Any, federate: Federate) -> None:
    settings = {"iterations": 1}
    simulation = federate(
        network="face", defense="concealed_samples", settings=settings, clients=30, photos=1
    )
    photos = simulation.split.photos[0]
    assert len(photos) == 1
    returned = simulation.step(simulation.fresh(), 0, photos, LocalTraining(), noise())
    (sent,) = (s for s in returned.shared if isinstance(s, Update))
    assert sent.examples == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"each": 0},
        {"iterations": 0},
        {"lr": 0.0},
        {"distance": 0.0},
        {"scores": -1.0},
        {"blend": 0.0},
        {"blend": 1.5},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        ConcealedSamples(**settings)
