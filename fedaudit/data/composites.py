"""Faces of people who do not exist and whom nobody audits: composites of OpenPeople.

Eyes and brows of one person, nose and mouth of another, all else of a third; the parts take the
tones of the face that they are put into. At the places of the template they fit as they are. A
composite is a person of its own (the composite face effect; Young, Hellawell & Hay 1987): both
judges take photos of one composite for one person, and hardly ever for a person it is made of
(`tests/data/test_composites.py`).
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fedaudit.core.seeds import generator_for
from fedaudit.data.crop import gray
from fedaudit.data.openpeople import PEOPLE, openpeople

DONORS = tuple(f"p{number:02d}" for number in range(1, PEOPLE + 1))
FRONTAL = (0, 1, *range(3, 11), *range(15, 21))
"""Photos of each person that look into the camera: the nose is within 0.15 eye distances of the
middle in all ten, which parts of two photos need to fit."""

# Centers and half widths, in shares of the square, of what is taken: rows, then columns; by eye.
_EYES = ((0.44, 0.13), (0.5, 0.33))
_MOUTH = ((0.76, 0.19), (0.5, 0.25))
_SEAM = 0.025  # width of the edge, in shares of the square


@lru_cache(maxsize=16)
def composite_faces(
    people: tuple[str, ...],
    shape: tuple[int, int, int],
    *,
    grayscale: bool,
    without: frozenset[str] = frozenset(),
) -> Tensor:
    """`[N, C, H, W]` in [0, 1]: a photo for each entry of `people`, equal names one person.

    A name decides the face: whoever stands in for somebody does so in every cell. Kept for the next
    call: not to be changed in place.

    Args:
        people: Any names.
        shape: `(C, H, W)`.
        grayscale: All channels alike.
        without: People of OpenPeople who lend nothing, as they are audited themselves; of all
            others, two must be left, or everybody lends.

    Raises:
        AssetError: OpenPeople or the face detector is neither cached nor fetchable.
    """
    side = max(shape[1:])
    photos = _photos(side)
    donors = [k for k, name in enumerate(DONORS) if name not in without]
    donors = donors if len(donors) > 1 else list(range(PEOPLE))
    eyes, mouth = _window(_EYES, side), _window(_MOUTH, side)
    counts = dict.fromkeys(people, 0)
    faces = []
    for name in people:
        lots = generator_for("composite", name)
        first, second, third = _three(donors, lots)
        start = int(torch.randint(len(FRONTAL), (), generator=lots))
        photo = (start + counts[name]) % len(FRONTAL)
        counts[name] += 1
        face, second_face, third_face = photos[[first, second, third], photo].float().div(255)
        for part, window in ((second_face, eyes), (third_face, mouth)):
            face = torch.lerp(face, _tone(part, face, window), window)
        faces.append(face.clamp(0, 1))
    images = torch.stack(faces)
    if grayscale or shape[0] == 1:
        images = gray(images)
    if shape[1:] != (side, side):
        images = interpolate(images, shape[1:], mode="bilinear", antialias=True)
    return images.expand(-1, shape[0], -1, -1).contiguous()


@lru_cache(maxsize=2)
def _photos(side: int) -> Tensor:
    """`[people, len(FRONTAL), 3, side, side]` uint8."""
    images = openpeople(size=side).images.view(PEOPLE, -1, 3, side, side)
    return images[:, FRONTAL].mul(255).round().byte()


def _three(donors: Sequence[int], lots: torch.Generator) -> tuple[int, int, int]:
    """The people of whom a composite is made: three, or two where there are only two."""
    order = torch.randperm(len(donors), generator=lots).tolist()
    first, second, third = (donors[order[k % len(order)]] for k in range(3))
    return first, second, third


def _window(place: Sequence[tuple[float, float]], side: int) -> Tensor:
    """`[side, side]` in [0, 1]: 1 in the part, with soft edges."""
    at = (torch.arange(side) + 0.5) / side
    rows, columns = (
        torch.sigmoid((width - (at - center).abs()) / _SEAM) for center, width in place
    )
    return rows[:, None] * columns[None]


def _tone(part: Tensor, like: Tensor, window: Tensor) -> Tensor:
    """`part` `[3, S, S]` with mean and deviation of `like` in each channel, within the window."""
    weight = window / window.sum()

    def moments(image: Tensor) -> tuple[Tensor, Tensor]:
        mean = (image * weight).sum((1, 2), keepdim=True)
        return mean, ((image - mean).square() * weight).sum((1, 2), keepdim=True).sqrt()

    mean, deviation = moments(part)
    target_mean, spread = moments(like)
    return (part - mean) / deviation.clamp_min(1e-3) * spread + target_mean
