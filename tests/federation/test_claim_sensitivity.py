"""Without noise, neighbors are no further apart than the sensitivity that noise is scaled to."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.core.claims import Claim
from fedaudit.core.errors import FedauditError
from fedaudit.core.shared import Update
from fedaudit.defenses.composition import claims_of
from fedaudit.federation.simulation import Simulation

sys.path.insert(0, str(Path(__file__).parents[1] / "defenses"))
sys.path.insert(0, str(Path(__file__).parent))
from neighbors import METHODS, PHOTOS, TRAINING, federation, neighbor, quickly, step
from test_defense_contract import CASES

Federate = Callable[..., Simulation]
FAR = replace(TRAINING, lr=1e3, batch_size=64)
"""All photos in a step so large that rounding the weights does not blur what one photo moves."""


def stretch(one: Update, other: Update) -> float:
    """L2 distance of two updates."""
    first, second = (torch.cat([t.flatten() for t in u.tensors.values()]) for u in (one, other))
    return float((first - second).norm())


BEFORE_TRAINING: Mapping[str, dict[str, Any]] = {
    name: CASES[name]
    for name in ("none", "ats", "private_projector", "local_layers", "larger_batch", "precode")
}
"""Defenses that change what trains, and leave one image's part in the update to DP-SGD."""


def gradient_distance(simulation: Simulation, color: bool = False) -> tuple[float, Claim]:
    """How far one replaced photo moves the sum of clipped gradients, in units of C; the claim."""
    state, photos = simulation.fresh(), simulation.labelled(0)[:PHOTOS]
    one = step(simulation, state, photos, FAR)
    elsewhere, others = neighbor(simulation, "image", photos, color)
    other = step(elsewhere, state, others, FAR)
    (first, *_), (second, *_) = (
        [sent for sent in r.shared if isinstance(sent, Update)] for r in (one, other)
    )
    assert first.examples
    rate = 1.0 if first.kind == "gradient" else FAR.lr
    (claim,) = (claim for claim in claims_of(one) if claim.unit == "image")
    return first.examples * stretch(first, second) / (rate * QUIET["max_grad_norm"]), claim


QUIET = {"noise_multiplier": 0.0, "max_grad_norm": 1e-4}
"""Small enough that each photo's gradient is clipped."""


@pytest.mark.parametrize("before", quickly(BEFORE_TRAINING, *list(BEFORE_TRAINING)[1:]))
@pytest.mark.parametrize("method", quickly(METHODS, "fedprox", "solomon_woubie"))
def test_one_image_moves_dp_sgd_by_twice_the_clipping_norm_at_most(
    federate: Federate, method: str, before: str
) -> None:
    """Replacing is removing and adding: 2C, for methods as they wrap the training, or a gap."""
    simulation = federation(
        federate, method, ("dpsgd", QUIET), (before, dict(BEFORE_TRAINING[before]))
    )
    for color in (False, True):
        try:
            moved, claim = gradient_distance(simulation, color)
        except FedauditError:
            return  # the method refuses the defense
        gaps = {gap.what for gap in claim.gaps}
        excused = "update" in gaps or (color and "grayness" in gaps)
        assert moved > 0.01 or method == "fedface"  # which knows one person: the same label
        assert moved <= 2 * (1 + 1e-3) or excused


def test_a_template_that_trains_moves_every_gradient(federate: Federate) -> None:
    """FedFace's first round: one photo moves the mean feature, and that all gradients."""
    simulation = federation(federate, "fedface", ("dpsgd", QUIET))
    _, claim = gradient_distance(simulation)
    assert claim.broken
    assert {"update", "class_embeddings"} <= {gap.what for gap in claim.gaps}
    state, photos = simulation.fresh(), simulation.labelled(0)[:PHOTOS]
    later, _ = simulation.train(state, range(1, 2))
    again = claims_of(step(simulation, later, photos))[0]
    assert again.covers == ("update", "class_embeddings")  # both are the server's, and noised
