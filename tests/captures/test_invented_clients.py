"""The prior-only control: the update of invented people, and nothing of those who are audited."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fedaudit.attacks.templates.read_templates import KINDS
from fedaudit.captures.simulate.invented_clients import (
    INVENTED,
    OTHERS,
    is_gray,
    without_clients,
)
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create
from fedaudit.core.shared import tensors_in
from fedaudit.data.composites import composite_faces
from fedaudit.data.face_set import FaceSet
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation

Intercept = Callable[..., Capture]
Federate = Callable[..., Simulation]

CASES = (
    pytest.param("fedavg", {}, "top_k", id="fedavg"),  # with error feedback
    pytest.param("fedgc", {}, "none", id="fedgc"),
    pytest.param("privacyface", {"min_size": 2, "radius": 1.5}, "none", id="privacyface"),
    pytest.param("fedface", {"pretrain_steps": 0}, "none", id="fedface", marks=pytest.mark.slow),
    pytest.param("solomon_woubie", {"secure": True}, "none", id="sum", marks=pytest.mark.slow),
)


def federation(federate: Federate, method: str, settings: dict[str, Any], defense: str) -> Any:
    clients = 30 if method == "fedface" else 2
    simulation = federate(defense=defense, clients=clients, photos=3)
    return replace(simulation, method=create("methods", method, settings))


def elsewhere(simulation: Simulation, state: State, client: int) -> tuple[Simulation, State]:
    """The same federation, had the client other photos in this round and all rounds before."""
    faces, photos = simulation.faces, list(simulation.split.photos[client])
    images = faces.images.clone()
    images[photos] = images[photos].flip(0).flip(3) * 0.5
    state = State(dict(state.server), {c: dict(k) for c, k in state.kept.items()}, {}, state.public)
    noise = torch.Generator().manual_seed(5)

    def other_rows(held: Any, rows: Any) -> None:
        if "head.weight" in held and rows:
            new = held["head.weight"].clone()
            drawn = F.normalize(torch.randn(new[rows].shape, generator=noise), dim=1)
            new[rows] = drawn * new[rows].norm(dim=1, keepdim=True)
            held["head.weight"] = new

    other_rows(state.server, list(simulation.owned(client)))
    other_rows(state.kept.get(client, {}), ...)
    return replace(simulation, faces=replace(faces, images=images)), state


@pytest.mark.parametrize(("method", "settings", "defense"), CASES)
def test_the_control_does_not_depend_on_the_audited_photos(
    method: str,
    settings: dict[str, Any],
    defense: str,
    federate: Federate,
    intercept: Intercept,
) -> None:
    simulation = federation(federate, method, settings, defense)
    state, _ = simulation.train(simulation.fresh(), range(1, 2))
    clients: Sequence[int] = range(2) if method == "solomon_woubie" else (0,)
    how: dict[str, Any] = {"batch": 2, "training": LocalTraining(lr=0.05, batch_size=2)}
    audited = intercept(simulation=simulation, state=state, **how).seen
    templates = any(type(sent) in KINDS for sent in audited.shared)
    controls = []
    for ours, held in ((simulation, state), elsewhere(simulation, state, 0)):
        other, weights, words = without_clients(ours, held, clients, templates=templates)
        assert words == INVENTED
        controls.append(intercept(simulation=other, state=weights, **how).seen)
    first, second = controls
    assert [type(s) for s in first.shared] == [type(s) for s in audited.shared]
    for one, two, real in zip(first.shared, second.shared, audited.shared, strict=True):
        torch.testing.assert_close(tensors_in(one), tensors_in(two), rtol=1e-4, atol=1e-6)
        pairs = zip(tensors_in(one), tensors_in(real), strict=True)
        assert not all(torch.equal(a, b) for a, b in pairs)
    assert first.batch_size == audited.batch_size


def test_invented_people_are_gray_where_photos_are_and_stay_themselves(faces: FaceSet) -> None:
    gray = composite_faces(("a", "b", "a"), (3, 32, 32), grayscale=True)
    assert is_gray(gray)
    assert is_gray(faces.images)
    color = composite_faces(("a",), (3, 32, 32), grayscale=False)
    assert not is_gray(color)
    assert torch.equal(gray, composite_faces(("a", "b", "a"), (3, 32, 32), grayscale=True))
    same, other = (float((gray[0] - gray[k]).square().mean()) for k in (2, 1))
    assert 0 < same < other


def test_images_without_people_are_replaced_by_others_of_the_set(
    federate: Federate, faces: FaceSet
) -> None:
    nameless = replace(faces, has_identities=False, people=faces.sources)
    for clients in (1, 2):
        simulation = federate(faces=nameless, clients=clients, held_out=0, photos=1)
        other, _, words = without_clients(simulation, State({}), (0,), templates=False)
        assert words == OTHERS
        photos = simulation.split.photos[0]
        ours, theirs = other.images(photos), simulation.images(photos)
        assert not any(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert all(bool((faces.images == one).flatten(1).all(1).any()) for one in ours[:5])
