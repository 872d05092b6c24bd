"""Clients with neighboring data, and how far what they send is apart at one noise draw."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.core.client import ClientReturn
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create
from fedaudit.core.shared import Shared, kind_of, tensors_in
from fedaudit.defenses.composition import claims_of
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation

sys.path.insert(0, str(Path(__file__).parents[1] / "defenses"))
from test_defense_contract import CASES

Federate = Callable[..., Simulation]
LOUD = 1e4
"""Noise over the sensitivity where neighbors must look alike."""
ALIKE = 0.1
"""Relative L2 distance that counts as alike: signs and places of a ten-thousandth may flip."""
SMALL = 1e-3
"""Clipping norm at which loud noise leaves the weights finite."""
GIVERS: dict[str, dict[str, Any]] = {
    "dpsgd": {"noise_multiplier": LOUD, "max_grad_norm": SMALL},
    "client_dp": {"noise_multiplier": LOUD, "max_norm": SMALL, "quantile": 0.5},
    "dplc": {"epsilon": 1 / LOUD, "radius": 1.5, "min_size": 1},
}
"""Defenses that make a claim, at loud noise."""
METHODS: dict[str, dict[str, Any]] = {
    "fedsgd": {},
    "fedavg": {},
    "fedprox": {"mu": 1.0},
    "fedface": {"pretrain_steps": 0, "margin": 1.0},
    "fedgc": {},
    "privacyface": {"radius": 1.5, "min_size": 1},
    "private_projector": {"pretrain_steps": 0},
    "solomon_woubie": {"imposters": 2},
    "fedaffect": {},
}
PHOTOS = 4
TRAINING = LocalTraining(lr=0.02, steps=1, batch_size=PHOTOS)


def quickly(values: Iterable[str], *slow: str) -> list[Any]:
    """Parameters of a test, those of `slow` for the long suite only."""
    return [pytest.param(v, marks=pytest.mark.slow) if v in slow else v for v in values]


def federation(
    federate: Federate, method: str, *defenses: tuple[str, dict[str, Any]]
) -> Simulation:
    """Two clients (FedFace: of one person each) with the defenses in the order of a chain."""
    of = tuple({"name": name, **settings} for name, settings in defenses)
    clients = {"clients": 12, "held_out": 28} if method == "fedface" else {"clients": 2}
    plain = federate(
        network="small_cnn",
        defense="chain" if of else "none",
        settings={"of": of} if of else {},
        photos=8,
        **clients,
    )
    return replace(plain, method=create("methods", method, METHODS[method]))


def neighbor(
    simulation: Simulation, unit: str, photos: tuple[int, ...], color: bool
) -> tuple[Simulation, tuple[int, ...]]:
    """The client with another first photo, or with others all over: of another person, repainted.

    Of a fresh network the label moves a gradient more than anything else.
    """
    rest = simulation.labelled(0)[PHOTOS:]
    changed = rest[-1:] if unit == "image" else rest[-PHOTOS:]
    images = simulation.faces.images.clone()
    repainted = list(changed) if unit == "image" else list(simulation.split.photos[0])
    noise = torch.Generator().manual_seed(11)
    other = torch.rand(len(repainted), *images.shape[1:], generator=noise)
    images[repainted] = other if color else other.mean(1, keepdim=True).expand_as(other)
    other_faces = replace(simulation, faces=replace(simulation.faces, images=images))
    return other_faces, (*changed, *photos[len(changed) :])


def step(
    simulation: Simulation,
    state: State,
    photos: tuple[int, ...],
    training: LocalTraining = TRAINING,
) -> ClientReturn:
    return simulation.step(state, 0, photos, training, torch.Generator().manual_seed(5))


def distance(one: Shared, other: Shared) -> float:
    """Largest relative distance of any tensor; infinite where shapes differ."""
    worst = 0.0
    for a, b in zip(tensors_in(one), tensors_in(other), strict=True):
        if a.shape != b.shape:
            return float("inf")
        size = max(float(a.double().norm()), float(b.double().norm()))
        worst = max(worst, float((a.double() - b.double()).norm()) / size if size else 0.0)
    return worst


def by_kind(returned: ClientReturn) -> dict[str, list[Shared]]:
    kinds: dict[str, list[Shared]] = {}
    for sent in returned.shared:
        kinds.setdefault(kind_of(sent), []).append(sent)
    return kinds


def moved_by(simulation: Simulation, unit: str, *, color: bool = False) -> tuple[Any, ...]:
    """The claims of a client's round, and how far each kind moves for a neighbor of that unit."""
    state, photos = simulation.fresh(), simulation.labelled(0)[:PHOTOS]
    returned = step(simulation, state, photos)
    elsewhere, others = neighbor(simulation, unit, photos, color)
    other = step(elsewhere, state, others)
    ours, theirs = by_kind(returned), by_kind(other)
    moved = {
        kind: max(distance(a, b) for a, b in zip(sent, theirs.get(kind, []), strict=True))
        for kind, sent in ours.items()
    }
    return claims_of(returned), moved


READING = {"censor": {"trials": 16}}
"""Enough draws that other photos choose another one."""


def settings_of(name: str) -> dict[str, Any]:
    return {**GIVERS.get(name, CASES[name]), **READING.get(name, {})}


def chained(federate: Federate, method: str, first: str, second: str) -> Simulation:
    return federation(federate, method, (first, settings_of(first)), (second, settings_of(second)))
