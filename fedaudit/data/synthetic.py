"""Faces of people who do not exist, from the face GAN."""

import math

import torch
from torch import Tensor

from fedaudit.core.errors import DataError
from fedaudit.data.crop import resize
from fedaudit.data.face_set import FaceSet
from fedaudit.files.asset_table import ASSETS
from fedaudit.models.generator import load_generator

_BATCH = 100


def synthetic(
    *, size: int = 64, people: int = 40, photos: int = 10, spread: float = 0.3, seed: int = 0
) -> FaceSet:
    """Faces of invented people: in-domain for the `generator` prior, so never the only evidence.

    A person is a point of the generator's latent space and their photos lie around it:
    z = √(1 − spread²) · z_person + spread · noise.

    Args:
        size: Side of the photos in pixels; the generator draws them at 64.
        people: How many people.
        photos: How many photos of each, at least 2.
        spread: How much photos of a person differ, in (0, 1); 0.3 keeps the identity.
        seed: Equal seeds give equal faces; other sizes show the same faces.

    Raises:
        DataError: A setting is out of range.
        AssetError: The generator is neither cached nor fetchable.
    """
    if people < 1 or photos < 2 or not 0 < spread < 1:
        raise DataError(
            f"synthetic faces with people = {people}, photos = {photos}, spread = {spread}: needed "
            "are at least one person, two photos of each, and a spread between 0 and 1."
        )
    generator = load_generator("face_gan")
    noise = torch.Generator().manual_seed(seed)
    identities = torch.randn(people, 1, generator.latent_dim, generator=noise)
    variations = torch.randn(people, photos, generator.latent_dim, generator=noise)
    z = (math.sqrt(1 - spread**2) * identities + spread * variations).flatten(0, 1)
    with torch.no_grad():
        parts = [resize(generator(part), size) for part in torch.split(z, _BATCH)]
    return invented_people("synthetic", torch.cat(parts), photos)


def invented_people(name: str, images: Tensor, photos: int) -> FaceSet:
    """Generated faces `[N, 3, H, W]` as a set, `photos` of each person in turn: p001, p002 …."""
    names = [f"p{p:03d}" for p in range(1, len(images) // photos + 1)]
    return FaceSet(
        name=name,
        images=images,
        people=tuple(person for person in names for _ in range(photos)),
        sources=tuple(f"{person}/{i}" for person in names for i in range(1, photos + 1)),
        terms=f"synthetic; {ASSETS['face_gan'].terms}",
        public=True,
    )
