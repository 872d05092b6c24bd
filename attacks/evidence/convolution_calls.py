"""Hears convolutions that a network calls as functions, by weights that are no layer's own.

Layers that standardize their weight, and those that pad as TensorFlow does, call `F.conv2d`: what
enters there, and by which weight, no hook of a layer tells.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.layer_unfolding import Called

Hear = Callable[[Tensor, Tensor, Callable[[], Called]], None]
"""Takes inputs, weight, and what makes a stand-in for the layer."""


@contextmanager
def convolution_calls(hear: Hear) -> Iterator[None]:
    """Tell of each `F.conv2d(inputs, weight)` inside the block, before it is computed.

    Other threads are not listened to, nor are names that a file imported from torch for itself.

    Example:
        >>> with convolution_calls(lambda inputs, weight, layer: print(layer().kernel_size)):
        ...     _ = F.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(5, 3, 2, 2), stride=2)
        (2, 2)
    """
    usual, other, mine = F.conv2d, torch.conv2d, threading.get_ident()

    def conv2d(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        def layer() -> Called:
            return Called(weight, stride, padding, dilation, groups)

        if threading.get_ident() == mine and input.dim() == 4:
            hear(input, weight, layer)
        return usual(input, weight, bias, stride, padding, dilation, groups)

    F.conv2d = torch.conv2d = conv2d  # type: ignore[assignment]
    try:
        yield
    finally:
        F.conv2d, torch.conv2d = usual, other
