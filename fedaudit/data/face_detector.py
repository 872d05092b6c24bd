"""YuNet (Wu et al. 2023): where the faces of a photo are, and five points in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fedaudit.data.crop import in_rgb
from fedaudit.files import asset_store
from fedaudit.models.onnx_network import load_onnx

SIDES = (640, 320)
"""Pixels of the longer side at which a photo is searched. The network finds faces of some 10 to
300 pixels, so the smaller side finds those that fill the photo."""
MIN_SCORE = 0.7

_STRIDES = (8, 16, 32)
_OVERLAP = 0.3  # intersection over union above which two boxes are one face; as in OpenCV
_MULTIPLE = 32  # the sides that the network takes

Point = tuple[float, float]
"""Column and row, in pixels."""


@dataclass(frozen=True)
class Face:
    """A face in a photo, in the photo's pixels.

    Attributes:
        box: Left, top, right, bottom.
        points: Eyes, tip of the nose, corners of the mouth; of each pair the one that is at the
            left of a photo that shows the face upright comes first.
        score: How sure the detector is, in [0, 1].
    """

    box: tuple[float, float, float, float]
    points: tuple[Point, ...]
    score: float

    @property
    def width(self) -> float:
        """Width of the face's box in pixels."""
        return self.box[2] - self.box[0]


def find_faces(
    photo: Image.Image, sides: Sequence[int] = SIDES, min_score: float = MIN_SCORE
) -> tuple[Face, ...]:
    """The faces of an upright photo, the largest first.

    Args:
        photo: Of any mode and size.
        sides: Pixels of the longer side at which it is searched; a small photo is enlarged.
        min_score: Faces that the detector is less sure of are left out.

    Raises:
        AssetError: The detector is neither cached nor fetchable.
    """
    from torchvision.ops import nms  # noqa: PLC0415 - slow

    candidates = torch.cat([_candidates(photo, side, min_score) for side in sides])
    rows = candidates[nms(candidates[:, :4], candidates[:, 4], _OVERLAP)].tolist()
    faces = [
        Face(box=tuple(f[:4]), points=tuple(zip(f[5::2], f[6::2], strict=True)), score=f[4])
        for f in rows
    ]
    return tuple(sorted(faces, key=lambda face: -face.width))


def _candidates(photo: Image.Image, side: int, min_score: float) -> Tensor:
    """`[n, 15]` of one scale: box, score and points in the photo's pixels, with overlaps."""
    scale = side / max(photo.size)
    width, height = (max(1, round(length * scale)) for length in photo.size)
    small = in_rgb(photo).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).flip(0)  # blue comes first
    frame = torch.zeros(1, 3, _pad(height), _pad(width))
    frame[0, :, :height, :width] = pixels
    with torch.no_grad():
        maps = _detector()(frame.contiguous(memory_format=torch.channels_last))
    levels = [_decode(maps[k::3], stride, frame.shape[3]) for k, stride in enumerate(_STRIDES)]
    rows = torch.cat(levels)
    rows = rows[rows[:, 4] >= min_score]
    columns = [0, 1, 2, 3, *range(5, 15)]
    rows[:, columns] *= torch.tensor([photo.width / width, photo.height / height]).repeat(7)
    return rows


def _pad(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _decode(maps: Sequence[Tensor], stride: int, width: int) -> Tensor:
    """`[n, 15]` of one level: box, score and points in the padded picture's pixels.

    Args:
        maps: `[1, n, k]` each, for n anchors that lie in rows: scores of being a face and of being
            an object, whose geometric mean counts; centers and logarithms of the sides of boxes;
            points. All are relative to the anchor and in strides.
        stride: Pixels between the anchors.
        width: Of the padded picture.
    """
    kind, there, boxes, points = (values[0] for values in maps)
    number = torch.arange(len(kind))
    columns = width // stride
    anchor = torch.stack([number % columns, number // columns], 1).float()
    score = (kind * there).clamp(0, 1).sqrt()
    center, half = anchor + boxes[:, :2], boxes[:, 2:].exp() / 2
    marks = anchor.repeat(1, 5) + points
    geometry = torch.cat([center - half, center + half, marks], 1) * stride
    return torch.cat([geometry[:, :4], score, geometry[:, 4:]], 1)


@cache
def _detector() -> nn.Module:
    network = load_onnx(asset_store.path("face_detector"))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
