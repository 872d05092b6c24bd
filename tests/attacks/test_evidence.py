"""What an update says before any search."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.gathering.gather import gather, mean_gradient
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import DefenseFacts, LocalTraining
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.federation.simulation import Simulation
from fedaudit.models.facenet import require_face_net

Intercept = Callable[..., Capture]


def colored(faces: FaceSet) -> FaceSet:
    tint = torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)
    return replace(faces, name="colored", images=faces.images * tint)


@pytest.mark.parametrize("network", ["face", "small_cnn"])
@pytest.mark.parametrize("batch", [1, 4])
def test_grayscale_shows_in_the_update(
    network: str,
    batch: int,
    faces: FaceSet,
    federate: Callable[..., Simulation],
    intercept: Intercept,
) -> None:
    gray = intercept(simulation=federate(network=network), batch=batch)
    color = intercept(simulation=federate(network=network, faces=colored(faces)), batch=batch)
    assert gather(gray.seen).grayscale
    assert not gather(color.seen).grayscale


def test_grayscale_is_not_claimed_under_noise(intercept: Intercept) -> None:
    assert not gather(intercept(defense="dpsgd").seen).grayscale


@pytest.mark.parametrize("batch", [1, 4])
def test_labels_and_maps_of_an_undefended_update(batch: int, intercept: Intercept) -> None:
    captured = intercept(batch=batch)
    evidence = gather(captured.seen)
    assert captured.secret is not None
    assert evidence.labels is not None
    assert evidence.labels.tolist() == sorted(captured.secret.labels.tolist())
    assert evidence.count == batch
    assert evidence.shape == (3, 32, 32)
    assert evidence.first_fc is not None
    assert evidence.first_fc.maps is not None


def test_granted_labels_are_used_as_they_are(intercept: Intercept) -> None:
    captured = intercept(batch=4, grant=("labels",))
    assert captured.secret is not None
    evidence = gather(captured.seen)
    assert evidence.labels is not None
    assert torch.equal(evidence.labels, captured.secret.labels)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["cosface", "linear"])
def test_maps_of_repeated_people_in_a_trained_network(
    head: str, federate: Callable[..., Simulation], intercept: Intercept
) -> None:
    """Each map against the network's own, computed from the secret image."""
    simulation = federate(arguments={"head": head}, clients=6)
    state, _ = simulation.train(simulation.fresh(), range(1, 4))
    captured = intercept(simulation=simulation, state=state, batch=8)
    secret = captured.secret
    assert secret is not None
    assert len(set(secret.people)) < 8
    for seen in (captured.seen, replace(captured.seen, labels=secret.labels)):
        evidence = gather(seen)
        assert evidence.labels is not None
        assert evidence.labels.sort().values.tolist() == sorted(secret.labels.tolist())
        assert evidence.first_fc is not None
        assert evidence.first_fc.maps is not None
        with torch.no_grad():
            true = require_face_net(evidence.model, "the test").features(secret.images)
        near = torch.cosine_similarity(evidence.first_fc.maps[:, None], true[None], dim=2)
        which = near.argmax(1)
        assert sorted(which.tolist()) == list(range(8))
        assert float(near.max(1).values.min()) > 0.999
        assert torch.equal(secret.labels[which], evidence.labels)


@pytest.mark.parametrize(
    ("defense", "labels", "entry", "maps"),
    [
        ("dplc", False, True, True),
        ("private_projector", False, False, False),
        ("dpsgd", True, False, False),
    ],
)
def test_what_a_defense_leaves(
    defense: str, labels: bool, entry: bool, maps: bool, intercept: Intercept
) -> None:
    evidence = gather(intercept(defense=defense).seen)
    assert (evidence.labels is not None) == labels
    assert (evidence.first_fc is not None) == entry
    assert (evidence.first_fc is not None and evidence.first_fc.maps is not None) == maps


def test_without_the_head_a_batch_shows_only_the_span(intercept: Intercept) -> None:
    entry = gather(intercept(batch=4, defense="dplc").seen).first_fc
    assert entry is not None
    assert entry.maps is None
    assert entry.span.shape == (4, 2048)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_delta_becomes_a_mean_gradient(steps: int, intercept: Intercept) -> None:
    seen = intercept(method="fedavg", training=LocalTraining(lr=0.01, steps=steps)).seen
    single = intercept(method="fedsgd", training=LocalTraining(lr=0.01)).seen
    assert seen.update is not None
    assert single.update is not None
    gradient = mean_gradient(seen, seen.update)
    truth = single.update.tensors
    close = all(
        torch.allclose(gradient[k], truth[k], atol=2e-3 * float(truth[k].abs().max()))
        for k in truth
    )
    assert close == (steps == 1)
    if steps == 1:
        assert mean_gradient(single, single.update) == dict(truth)
    unknown = mean_gradient(replace(seen, training=None), seen.update)
    for name, value in unknown.items():
        torch.testing.assert_close(value, -seen.update.tensors[name])


@pytest.mark.parametrize("threat", ["A"])
def test_the_batch_must_be_known(threat: str, intercept: Intercept) -> None:
    with pytest.raises(KnowledgeError, match="threat model B"):
        gather(intercept(threat=threat).seen)


def test_there_must_be_an_update(intercept: Intercept) -> None:
    with pytest.raises(AttackError, match="no model update"):
        gather(replace(intercept().seen, shared=()))


def test_how_adaptive_an_attack_was(intercept: Intercept) -> None:
    seen = intercept().seen

    def facts(*names: str) -> tuple[DefenseFacts, ...]:
        return tuple(DefenseFacts(name, {}) for name in names)

    cases: list[tuple[Any, str]] = [
        (None, "estimated"),
        ((), "none needed"),
        (facts("none"), "none needed"),
        (facts("dpsgd", "dplc"), "known"),
        (facts("dpsgd", "something new"), "no"),
    ]
    for defense, word in cases:
        assert how_adaptive(replace(seen, defense=defense)) == word


def test_networks_of_other_kinds_give_labels_and_maps(intercept: Intercept) -> None:
    """A plain module whose parts nobody named."""
    seen = intercept().seen
    network = _Plain(30)
    images, label = torch.rand(1, 3, 32, 32), torch.tensor([4])
    loss = nn.functional.cross_entropy(network(images), label)
    named = dict(network.named_parameters())
    tensors = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    other = replace(
        seen,
        model=replace(seen.model, factory=f"{__name__}:_Plain", arguments={"classes": 30}),
        before={name: p.detach() for name, p in named.items()},
        shared=(Update("gradient", tensors),),
    )
    evidence = gather(other)
    assert evidence.first_fc is not None
    assert evidence.first_fc.maps is not None
    true = nn.Sequential(*list(network)[:-1])(images)
    assert nn.functional.cosine_similarity(evidence.first_fc.maps, true).item() > 0.9999
    assert evidence.labels is not None
    assert evidence.labels.tolist() == [4]


class _Plain(nn.Sequential):
    def __init__(self, classes: int) -> None:
        super().__init__(nn.Conv2d(3, 4, 5, 4), nn.Sigmoid(), nn.Flatten(), nn.Linear(196, classes))
