"""Whose face a photo is of, where it shows several: the large one, in focus, near the middle."""

from collections.abc import Sequence
from math import exp

import numpy as np
from PIL import Image

from fedaudit.data.alignment import TEMPLATE_SIZE, align
from fedaudit.data.face_detector import Face

SPREAD = 0.25
"""Standard deviation, in sides of the photo, of the Gaussian by which a face counts less the
farther it is from the middle."""
SHARPEST = 1.2
"""Focus that no face has: of OpenPeople's 230 the sharpest has 0.72, of ORL's 400 1.16."""
_INNER = slice(20, 108), slice(16, 96)  # rows and columns of the template that every face fills


def by_prominence(photo: Image.Image, faces: Sequence[Face]) -> tuple[Face, ...]:
    """A photo's faces, the one that it is of first.

    They are ranked by width × focus × nearness to the middle. The largest alone is often a
    passer-by, out of focus before the subject; who is surest to be a face may stand far behind.
    The rule was chosen among thirteen on scenes of five of OpenPeople's people
    (`benchmarks/phone_photos.py subject` reports on the five others).

    Args:
        photo: Upright.
        faces: Found in it.
    """
    if len(faces) < 2:
        return tuple(faces)
    return tuple(sorted(faces, key=lambda face: -_prominence(photo, face)))


def may_lead(photo: Image.Image, face: Face, subject: Face) -> bool:
    """Whether a face might come before the subject if it were seen with more pixels.

    Args:
        photo: Upright, of fewer pixels than there are.
        face: In it, so small that its focus cannot be told.
        subject: In it, the most prominent of those whose focus can.
    """
    return SHARPEST * _place(photo, face) > _prominence(photo, subject)


def _prominence(photo: Image.Image, face: Face) -> float:
    return _place(photo, face) * focus(photo, face)


def _place(photo: Image.Image, face: Face) -> float:
    """Width × nearness to the middle."""
    left, top, right, bottom = face.box
    across, down = (left + right) / 2 / photo.width - 0.5, (top + bottom) / 2 / photo.height - 0.5
    return face.width * exp(-(across**2 + down**2) / (2 * SPREAD**2))


def focus(photo: Image.Image, face: Face) -> float:
    """How much of a face's contrast is fine detail, at the size that recognition looks at.

    The standard deviation of the Laplacian over that of the pixels: some 0.1 for a blur, 0.3 and
    more for a face in focus; what was enlarged to the template counts as blurred, too.
    """
    gray = np.asarray(align(photo, face.points, TEMPLATE_SIZE).convert("L"), dtype=np.float64)
    seen = gray[_INNER]
    around = seen[:-2, 1:-1] + seen[2:, 1:-1] + seen[1:-1, :-2] + seen[1:-1, 2:]
    return float((4 * seen[1:-1, 1:-1] - around).std() / (seen.std() + 1.0))
