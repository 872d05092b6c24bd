"""Patches that do not overlap, embedded by a product, whose slopes are cheaper on a CPU.

Training needs no slope by the images themselves, and the convolution that computes it (oneDNN's, by
a kernel as long as its stride) takes several times as long as a product of unfolded patches: what a
step through a small vision transformer costs with and without stands in
docs/benchmarks/search_settings.md.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair


@contextmanager
def patch_products() -> Iterator[None]:
    """Inside the block, `F.conv2d` embeds patches by a product; other calls are as before.

    Other threads are left alone.

    Example:
        >>> import torch
        >>> layer, images = torch.nn.Conv2d(3, 5, 4, stride=4), torch.rand(2, 3, 8, 8)
        >>> usual = layer(images)
        >>> with patch_products():
        ...     torch.allclose(layer(images), usual, atol=1e-6)
        True
    """
    usual, mine = F.conv2d, threading.get_ident()

    def conv2d(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        size = tuple(weight.shape[2:])
        apart = size == _pair(stride) and max(size) > 1 and groups == 1
        plain = padding == "valid" or (not isinstance(padding, str) and not any(_pair(padding)))
        own = threading.get_ident() == mine and input.device.type == "cpu" and input.dim() == 4
        if not (own and apart and plain and _pair(dilation) == (1, 1) and input.requires_grad):
            return usual(input, weight, bias, stride, padding, dilation, groups)
        maps = weight.flatten(1) @ F.unfold(input, size, stride=size)
        if bias is not None:
            maps = maps + bias[:, None]
        return maps.view(*maps.shape[:2], -1, input.shape[3] // size[1])

    F.conv2d = conv2d  # type: ignore[assignment]
    try:
        yield
    finally:
        F.conv2d = usual
