"""Properties of clients' photos: which there are, who has them, and how well they were told."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedaudit.attacks.membership.shadow_clients import Auxiliary
from fedaudit.core.inference import PropertyScore
from fedaudit.core.seeds import seed_for
from fedaudit.data.lighting_pose import lighting, pose
from fedaudit.federation.simulation import Simulation
from fedaudit.stats.rank_test import rank_correlation

FEWEST = 4
"""Clients below which no order of them can be told beyond chance: of three there are six."""


def auxiliary_photos(simulation: Simulation) -> Auxiliary | None:
    """Photos of people in nobody's data; None without, of pictures, or of too few clients."""
    faces, held_out = simulation.faces, set(simulation.split.held_out)
    photos = [k for k, person in enumerate(faces.people) if person in held_out]
    if faces.classes or not photos or len(simulation.split.clients) < FEWEST:
        return None
    properties = {
        name: has
        for name, has in properties_of(simulation, photos).items()
        if 0.1 < float(has[photos].double().mean()) < 0.9
    }
    return Auxiliary(
        simulation.images(photos),
        tuple(faces.people[k] for k in photos),
        {name: has[photos] for name, has in properties.items()},
    )


def properties_of(simulation: Simulation, photos: Sequence[int]) -> dict[str, Tensor]:
    """By name, `[N]` whether each photo of the set has the property.

    Light and pose are estimated from the photo; "right" is beyond the median of `photos`.
    """
    faces = simulation.faces
    properties = {
        name: (value := estimate(faces.images)) > value[list(photos)].median()
        for name, estimate in (
            ("light from the right", lighting),
            ("face turned to the right", pose),
        )
    }
    properties |= {name: torch.tensor(has) for name, has in faces.attributes}
    for expression in sorted(set(faces.expressions)):
        properties[f"expression: {expression}"] = torch.tensor(
            [one == expression for one in faces.expressions]
        )
    return properties


def judge_properties(
    simulation: Simulation, auxiliary: Auxiliary | None, told: Mapping[str, Tensor]
) -> tuple[PropertyScore, ...]:
    """Compare the predicted properties of clients' photos with the truth, one by one."""
    if auxiliary is None:
        return ()
    held_out = set(simulation.split.held_out)
    photos = [k for k, person in enumerate(simulation.faces.people) if person in held_out]
    every = properties_of(simulation, photos)
    scores = []
    for name, shares in told.items():
        true = [float(every[name][list(own)].double().mean()) for own in simulation.split.photos]
        rng = np.random.default_rng(seed_for("property", name, simulation.seed))
        rho, p = rank_correlation(shares.numpy(), np.array(true), rng)
        scores.append(PropertyScore(name, tuple(shares.tolist()), tuple(true), rho, p))
    return tuple(scores)
