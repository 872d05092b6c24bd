"""Settings and data that a method refuses, and what its specification tells an attacker."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedaudit.core.errors import DataError
from fedaudit.core.observation import ModelSpec
from fedaudit.federation.fedaffect import FedAffect
from fedaudit.federation.fedface import FedFace
from fedaudit.federation.fedgc import FedGC
from fedaudit.federation.privacyface import PrivacyFace
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.solomon_woubie import SolomonWoubie
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from small_federations import federation

Federate = Callable[..., Simulation]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (FedFace(pretrain_steps=0), {"clients": 2}, "one person a client.*clients = 30"),
        (PrivacyFace(min_size=16), {"clients": 2}, "min_size = 16.*Lower min_size"),
        (FedAffect(shots=5), {"clients": 2}, "unlabelled photos.*Lower shots"),
    ],
)
def test_data_that_a_method_cannot_use(
    method: Any, options: dict[str, Any], message: str, federate: Federate
) -> None:
    with pytest.raises(DataError, match=message):
        federation(federate, method, **options).fresh()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (PrivacyFace, {"epsilon": 0.0}, "epsilon must be > 0"),
        (PrivacyFace, {"delta": 1.0}, r"delta must lie in \(0, 1\)"),
        (PrivacyFace, {"radius": 1.6}, "radius must lie in"),
        (FedFace, {"margin": 0.0}, r"margin must lie in \(0, 1\]"),
        (FedGC, {"strength": -1.0}, "strength must be ≥ 0"),
        (SolomonWoubie, {"imposters": -1}, "imposters must be ≥ 0"),
        (FedAffect, {"shots": 0}, "shots must be at least 1"),
    ],
)
def test_settings_out_of_range(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_a_spec_says_all_that_an_attacker_needs(federate: Federate) -> None:
    simulation = federation(federate, PrivacyFace())
    spec = simulation.spec(0)
    assert isinstance(spec, ModelSpec)
    assert build(spec, simulation.fresh().server) is not None
    assert spec.arguments["classes"] == 15
