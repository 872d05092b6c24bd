"""Hears matrices that a network applies without a layer, as attention does.

`nn.MultiheadAttention` and torchvision's Swin call `F.linear` with weights of their own, and ports
from other frameworks write `inputs @ weight`: no hook of a layer tells what enters there.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fedaudit.models.matrix_products import factors

Hear = Callable[[Tensor, Tensor], None]
"""Takes the inputs `[…, F]` of a call, and its weight `[r, F]`, which may be a view."""


@contextmanager
def matrix_calls(hear: Hear, *, products: Hear | None = None) -> Iterator[None]:
    """Tell of each `F.linear(inputs, weight)` inside the block, before it is computed.

    Attention's fused kernel for evaluation, which makes no such call, is off inside the block.
    Other threads are not listened to.

    Args:
        hear: Called with the inputs and the weight.
        products: Called likewise of products `inputs @ matrix`, with the matrix transposed; that
            delays every call of torch. None does without.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> with matrix_calls(lambda inputs, weight: print(inputs.shape, weight is layer.weight)):
        ...     _ = layer(torch.zeros(5, 3))
        torch.Size([5, 3]) True
        >>> with matrix_calls(print, products=lambda inputs, weight: print(weight.shape)):
        ...     _ = torch.zeros(5, 3) @ torch.zeros(3, 2)
        torch.Size([2, 3])
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
        with nullcontext() if products is None else _Products(products):
            yield
    finally:
        F.linear = usual
        torch.backends.mha.set_fastpath_enabled(fused)


class _Products(TorchFunctionMode):
    """Tells of products with a matrix."""

    def __init__(self, hear: Hear) -> None:
        super().__init__()
        self.hear = hear

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        if (found := factors(func, args, keywords)) is not None:
            self.hear(*found[:2])
        return func(*args, **keywords)


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
