"""Where the aligned face lies in the photos of a set, and how a judge looks at it.

A recognition network was trained on faces at fixed places of a square. Photos of a set are cropped
in one way, tighter or wider than that square; reconstructions come with the crop of the originals.
So the square is located once in a set's photos, by the face detector, and every image is seen
through it: never is a face looked for in a reconstruction.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from fedaudit.data.alignment import square_of
from fedaudit.data.face_detector import find_faces

PHOTOS = 60
"""At most so many photos of a set are searched: their mean is known to a hundredth of a side."""

_SIDES = (320, 160)  # pixels at which photos that are little more than a face are searched


class Frame(NamedTuple):
    """A square in an image, in parts of the image's side; it may reach beyond the image."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = Frame(0.0, 0.0, 1.0, 1.0)


def locate(photos: Tensor) -> Frame:
    """Where the 112-pixel template's square lies in photos of a set, on average.

    Args:
        photos: `[N, 3, H, H]` in [0, 1].

    Returns:
        `WHOLE` where no face is found in most of those that are searched: they are no faces, or
        cut so tightly that nothing better is known.

    Raises:
        AssetError: The face detector is neither cached nor fetchable.
    """
    from torchvision.transforms.functional import to_pil_image  # noqa: PLC0415 - slow

    step = max(1, len(photos) // PHOTOS)
    sample = photos[::step][:PHOTOS]
    squares = []
    for photo in sample:
        if faces := find_faces(to_pil_image(photo), _SIDES):
            squares.append(square_of(faces[0].points))
    if 2 * len(squares) <= len(sample):
        return WHOLE
    center_x, center_y, side = (torch.tensor(squares).mean(0) / photos.shape[-1]).tolist()
    half = side / 2
    return Frame(center_x - half, center_y - half, center_x + half, center_y + half)


def look(images: Tensor, frame: Frame, size: int) -> Tensor:
    """What a frame shows of `images [N, C, H, H]`: `[N, C, size, size]`, their edges continued."""
    left, top, right, bottom = frame
    side = round(size / (right - left))  # of the whole image, at the scale of what is shown
    if images.shape[-1] > 2 * side:  # up to there bilinear sampling sees every pixel
        images = interpolate(images, (side, side), mode="bilinear", antialias=True)
    if frame == WHOLE and images.shape[-1] == size:
        return images
    shift = [[right - left, 0, left + right - 1], [0, bottom - top, top + bottom - 1]]
    theta = torch.tensor(shift, dtype=images.dtype).expand(len(images), 2, 3)
    grid = affine_grid(theta, [*images.shape[:2], size, size], align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)
