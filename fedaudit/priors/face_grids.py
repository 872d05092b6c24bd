"""PNG grids of images."""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

_GAP = 2
_ENLARGE_BELOW = 64


def grid(rows: Sequence[Tensor]) -> bytes:
    """A PNG of rows of images, each `[n, 3|1, S, S]` in [0, 1], white between them.

    Small faces are enlarged to twice their size.
    """
    side = rows[0].shape[-1]
    across = max(len(row) for row in rows)
    step = side + _GAP
    sheet = torch.ones(3, len(rows) * step + _GAP, across * step + _GAP)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = _GAP + y * step, _GAP + x * step
            sheet[:, top : top + side, left : left + side] = image.detach().cpu().clamp(0, 1)
    picture = Image.fromarray(sheet.mul(255).round().byte().permute(1, 2, 0).numpy())
    if side < _ENLARGE_BELOW:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
