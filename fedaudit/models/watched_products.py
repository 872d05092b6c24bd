"""The products of matrices that a forward pass computes, found while it runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fedaudit.models.matrix_products import factors

TRIED = 3
"""Images that a network is run on."""
Product = tuple[Tensor, Tensor, Tensor | None, Tensor]
"""Inputs `[N, D]`, matrix `[K, D]`, bias `[K]`, and outputs `[N, K]` before anything else."""


def drawn_images(model: nn.Module, shape: Sequence[int]) -> Tensor:
    """Images of noise `[N, …]`, as the network takes them."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(TRIED, *shape, generator=generator).to(next(model.parameters()))


@torch.no_grad()
def watch(model: nn.Module, images: Tensor) -> tuple[list[Product], Tensor]:
    """The products that a forward pass computes, in order, and its scores."""
    with _Products() as calls:
        scores = model(images)
    return calls.seen, scores


class _Products(TorchFunctionMode):
    """Keeps each product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Product] = []

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs or {})
        outputs = func(*args, **keywords)
        if isinstance(outputs, Tensor) and (parts := _product(func, args, keywords)) is not None:
            inputs, matrix, bias = parts
            if inputs.dim() == 2 and matrix.dim() == 2:
                self.seen.append((inputs, matrix, bias, outputs.reshape(len(inputs), -1)))
        return outputs


def _product(
    func: Any, args: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Inputs, matrix and bias of a call that multiplies them."""
    operands = [*args, *keywords.values()]
    if func is F.linear:
        return operands[0], operands[1], operands[2] if len(operands) > 2 else None
    if func in (F.conv2d, torch.conv2d) and operands[0].dim() == 4:
        inputs, weight = operands[0], operands[1]
        if inputs.shape[2:] == weight.shape[2:] and inputs.shape[1] == weight.shape[1]:
            bias = operands[2] if len(operands) > 2 else None
            return inputs.flatten(1), weight.flatten(1), bias
    weighed = {"alpha", "beta"} & set(keywords)  # a sum of multiples
    return None if weighed else factors(func, args, keywords)
