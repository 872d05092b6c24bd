"""Methods learn: the loss falls, and people whom nobody trained on are told apart."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fedaudit.data.expressions import expression_folder, expressions
from fedaudit.federation import utility
from fedaudit.federation.fedaffect import FedAffect
from fedaudit.federation.federation_state import State
from fedaudit.federation.fedface import FedFace
from fedaudit.federation.fedgc import FedGC
from fedaudit.federation.privacyface import PrivacyFace
from fedaudit.federation.private_projector_method import PrivateProjectorMethod
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.solomon_woubie import SolomonWoubie
from fedaudit.federation.utility import class_accuracy, measure, step_cost
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, criterion_of

sys.path.insert(0, str(Path(__file__).parent))
from small_federations import federation

Federate = Callable[..., Simulation]


@pytest.fixture(autouse=True)
def costs_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about the seconds of a client's round, which are a median of five."""
    monkeypatch.setattr(utility, "step_cost", partial(step_cost, repeats=1))


@pytest.mark.parametrize(
    ("method", "clients"),
    [
        (FedGC(), 2),
        (PrivacyFace(radius=1.5), 2),
        (PrivateProjectorMethod(pretrain_steps=0), 2),
        (SolomonWoubie(), 2),
        (SolomonWoubie(supervised=False), 2),
        (FedAffect(), 2),
    ],
)
def test_the_loss_falls(method: Any, clients: int, federate: Federate) -> None:
    few = {"clients": clients, "held_out": 28, "lr": 0.05, "momentum": 0.9}
    simulation = federation(federate, method, network="face", **few)
    fresh = simulation.fresh()
    # One round gives everybody the rows that the method initializes; compare from there.
    start, _ = simulation.train(fresh, range(1, 2))
    end, _ = simulation.train(start, range(2, 8))

    def loss(state: State) -> float:
        received = {**simulation.received(state, 0), **state.kept.get(0, {})}
        model = build(simulation.spec(0), received)
        photos = simulation._photos(0)
        labels = torch.tensor([simulation.label_of(0, photo) for photo in photos])
        with torch.no_grad():
            return float(criterion_of(model)(model(simulation.faces.images[list(photos)]), labels))

    assert loss(end) < 0.9 * loss(start)


@pytest.mark.slow  # a whole training
def test_fedface_learns_from_its_permissive_start(federate: Federate) -> None:
    """Ten invented people teach little before round 1 (AUC 0.88 of 0.87 at random); rounds do."""
    simulation = federation(
        federate, FedFace(), network="face", clients=30, local_steps=4, lr=0.3, momentum=0.9
    )
    fresh = simulation.fresh()
    end, _ = simulation.train(fresh, range(1, 6))
    before, after = (measure(simulation, s, rounds=0, seconds=0.0) for s in (fresh, end))
    assert before is not None
    assert after is not None
    assert after.auc > before.auc + 0.01


@pytest.mark.slow  # a whole training; its steps are tested one by one
def test_fedface_tells_apart_people_it_never_saw(federate: Federate) -> None:
    """From its pre-trained start, whose embeddings all point one way, within twelve rounds.

    After five, features may tell strangers apart worse than at the start: two seeds of three.
    """
    simulation = federation(
        federate,
        FedFace(public="synthetic"),
        network="face",
        clients=30,
        local_steps=4,
        lr=0.3,
        momentum=0.9,
    )
    fresh = simulation.fresh()
    end, _ = simulation.train(fresh, range(1, 13))
    before, after = (measure(simulation, s, rounds=0, seconds=0.0) for s in (fresh, end))
    assert before is not None
    assert after is not None
    assert before.auc > 0.92  # the pre-training taught something: a random network has 0.87
    assert after.auc > before.auc + 0.01
    assert after.accuracy.value > before.accuracy.value + 0.01
    # What spreads is the embeddings of those who train; the features follow.
    photos = [simulation.faces.images[list(simulation.split.photos[c])] for c in range(30)]

    def between(state: State) -> float:
        model = build(simulation.spec(0), {**simulation.received(state, 0)})
        assert isinstance(model, FaceNet)
        with torch.no_grad():
            means = F.normalize(torch.stack([model.embed(p).mean(0) for p in photos]), dim=1)
        return float((means @ means.T - torch.eye(30)).sum() / 870)

    assert between(fresh) > 0.4
    assert between(end) < 0.7 * between(fresh)


@pytest.mark.slow  # a whole training; its steps are tested one by one
def test_fedgc_beats_heads_that_never_meet(federate: Federate) -> None:
    """Clients who know of each other's classes learn features that tell strangers apart better."""
    options = {"network": "face", "clients": 5, "local_steps": 8, "batch_size": 16, "lr": 0.02}

    def auc(method: Any) -> float:
        simulation = federation(federate, method, momentum=0.9, **options)
        end, _ = simulation.train(simulation.fresh(), range(1, 6))
        found = measure(simulation, end, rounds=5, seconds=0.0)
        assert found is not None
        return found.auc

    alone = auc(FedGC(strength=0.0))
    assert alone > 0.9
    assert auc(FedGC(strength=500.0)) > alone + 0.005


@pytest.mark.slow  # a whole training; its steps are tested one by one
def test_fedaffect_learns_expressions_of_people_it_never_saw(federate: Federate) -> None:
    moods = expressions(size=32, people=90, photos=2, classes=("happy", "neutral"))
    simulation = federation(
        federate,
        FedAffect(shots=6),
        network="face",
        faces=moods,
        clients=3,
        photos=1,
        held_out=30,
        local_steps=4,
        batch_size=16,
        lr=0.05,
        momentum=0.9,
    )
    end, _ = simulation.train(simulation.fresh(), range(1, 15))
    found = class_accuracy(simulation, end)
    assert found is not None
    assert (found.photos, found.chance, found.held_out) == (60, 0.5, True)
    assert found.accuracy > 0.62


def test_fedaffect_on_folders_of_expressions(federate: Federate, tmp_path: Path) -> None:
    """Nobody can be held out there: photos whose labels train nothing are named instead."""
    brightness = {"bright": 200, "dark": 40}
    for name, level in brightness.items():
        (tmp_path / name).mkdir()
        for k in range(12):
            noise = torch.randint(0, 40, (32, 32), generator=torch.Generator().manual_seed(k))
            photo = Image.fromarray((level + noise).to(torch.uint8).numpy())
            photo.save(tmp_path / name / f"{k}.png")
    simulation = federation(
        federate,
        FedAffect(shots=2),
        network="mlp",
        faces=expression_folder(path=str(tmp_path), size=16),
        lr=0.02,
        local_steps=4,
    )
    assert simulation.labels_of(0) == ("bright", "dark")
    end, _ = simulation.train(simulation.fresh(), range(1, 4))
    found = class_accuracy(simulation, end)
    assert found is not None
    labelled = sum(len(simulation.labelled(client)) for client in range(2))
    assert (found.photos, found.held_out) == (24 - labelled, False)
    assert found.accuracy > 0.9
