"""Hears matrices that a network applies without a layer, as attention does.

`nn.MultiheadAttention` and torchvision's Swin call `F.linear` with weights of their own: no hook of
a layer tells what enters there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def linear_calls(hear: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Tell of each `F.linear(inputs, weight)` inside the block, before it is computed.

    Attention's fused kernel for evaluation, which makes no such call, is off inside the block.
    Other threads are not listened to.

    Args:
        hear: Called with the inputs `[…, F]` and the weight `[r, F]`.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> with linear_calls(lambda inputs, weight: print(inputs.shape, weight is layer.weight)):
        ...     _ = layer(torch.zeros(5, 3))
        torch.Size([5, 3]) True
    """
    usual, fused = F.linear, torch.backends.mha.get_fastpath_enabled()
    mine = threading.get_ident()

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if threading.get_ident() == mine:
            hear(input, weight)
        return usual(input, weight, bias)

    F.linear = linear
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        F.linear = usual
        torch.backends.mha.set_fastpath_enabled(fused)


def by_image(inputs: Tensor, count: int, *, in_attention: bool) -> Tensor | None:
    """What enters a call, as `[N, positions, F]`; None where it is not one image after the other.

    Args:
        inputs: `[…, F]`.
        count: N.
        in_attention: `nn.MultiheadAttention` calls, which has the places outside of the images.
    """
    width = inputs.shape[-1]
    if inputs.numel() % (count * width):
        return None
    if in_attention:
        return inputs.reshape(-1, count, width).transpose(0, 1)
    return inputs.reshape(count, -1, width) if len(inputs) % count == 0 else None
