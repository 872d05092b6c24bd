"""A federation of invented people, each a pattern of colors, of whom photos differ by noise."""

import torch

from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import split
from fedaudit.federation.simulation import Simulation

PHOTOS = 4


def federation(
    defense: str = "none", *, people: int = 24, rounds: int = 3, **settings: object
) -> Simulation:
    """Twelve people at four clients; the others are in nobody's data."""
    draws = torch.Generator().manual_seed(3)
    patterns = torch.rand(people, 1, 3, 16, 16, generator=draws)
    noise = torch.rand(people, PHOTOS, 3, 16, 16, generator=draws)
    names = tuple(f"p{p}" for p in range(people) for _ in range(PHOTOS))
    images = (0.7 * patterns + 0.3 * noise).flatten(0, 1)
    faces = FaceSet("patterns", images, names, names, "", True)
    training = LocalTraining(steps=6, batch_size=8, lr=0.1, momentum=0.9)
    plan = Federation(clients=4, rounds=rounds, held_out=people - 12, photos=2, training=training)
    return Simulation(
        network=ModelSpec("mlp"),
        faces=faces,
        split=split(faces, plan),
        federation=plan,
        method=create("methods", "fedavg", {}),
        defense=create("defenses", defense, settings),
    )
