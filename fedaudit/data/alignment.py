"""Align faces as recognition networks expect them: eyes, nose and mouth at fixed places.

The places are those of the 112-pixel template that ArcFace (Deng et al. 2019) made usual.
"""

import numpy as np
from PIL import Image

from fedaudit.data.crop import in_rgb
from fedaudit.data.face_detector import Point

TEMPLATE_SIZE = 112
TEMPLATE: tuple[Point, ...] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Eyes, tip of the nose and corners of the mouth in a square of `TEMPLATE_SIZE` pixels."""


def square_of(points: tuple[Point, ...]) -> tuple[float, float, float]:
    """Center (x, y) and side, in a photo's pixels, of the square that `align` cuts out."""
    scale, origin = _similarity(points, TEMPLATE_SIZE)
    center = origin + (0.5 + 0.5j) * TEMPLATE_SIZE / scale
    return float(center.real), float(center.imag), TEMPLATE_SIZE / abs(scale)


def align(photo: Image.Image, points: tuple[Point, ...], size: int = TEMPLATE_SIZE) -> Image.Image:
    """A face turned, scaled and cut out, `size` × `size` RGB; black where the photo ends.

    Args:
        photo: Upright.
        points: Of the face in the photo, as `Face.points` has them. They go to the template by the
            similarity transform that fits best.
        size: Side of the result in pixels.
    """
    scale, origin = _similarity(points, size)
    back = 1 / scale
    # The photo is brought to the template's scale first: PIL's transform does not antialias.
    corners = origin + back * size * np.array([0, 1, 1j, 1 + 1j])
    left, top, right, bottom = box = _around(corners, photo.size)
    shrink = min(1.0, abs(scale))
    width, height = (max(1, round(side * shrink)) for side in (right - left, bottom - top))
    small = in_rgb(photo).resize((width, height), Image.Resampling.BICUBIC, box=box)
    across, down = width / (right - left), height / (bottom - top)
    rows = (
        (back.real * across, -back.imag * across, (origin.real - left) * across),
        (back.imag * down, back.real * down, (origin.imag - top) * down),
    )
    return small.transform(
        (size, size), Image.Transform.AFFINE, rows[0] + rows[1], Image.Resampling.BICUBIC
    )


def _similarity(points: tuple[Point, ...], size: int) -> tuple[complex, complex]:
    """Scale and turn from the photo to the template, and the template's corner in the photo.

    The fit of least squares; a similarity transform is linear in complex numbers.
    """
    here = np.array(points) @ (1, 1j)
    there = np.array(TEMPLATE) @ (1, 1j) * size / TEMPLATE_SIZE
    x, y = here - here.mean(), there - there.mean()
    scale = (x.conj() @ y) / (x.conj() @ x)
    return scale, here.mean() - there.mean() / scale


def _around(corners: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Box in the photo that holds the corners, with a margin for interpolation."""
    margin = 4
    left, right = corners.real.min() - margin, corners.real.max() + margin
    top, bottom = corners.imag.min() - margin, corners.imag.max() + margin
    start = (min(max(0, int(left)), size[0] - 1), min(max(0, int(top)), size[1] - 1))
    return (
        *start,
        max(start[0] + 1, min(size[0], int(right) + 1)),
        max(start[1] + 1, min(size[1], int(bottom) + 1)),
    )
