"""Which calls of torch multiply rows by a matrix, and where both stand in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor, Tensor | None]
"""Inputs `[…, D]`, matrix `[K, D]`, which may be a view, and what is added to the outputs."""
_PRODUCTS = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)
_SUMS = (torch.addmm, Tensor.addmm)


def factors(func: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Factors | None:
    """What a call `inputs @ matrix` multiplies; None for all other calls, `F.linear` among them.

    >>> inputs, matrix, _ = factors(torch.mm, (torch.ones(5, 3), torch.ones(3, 2)), {})
    >>> inputs.shape, matrix.shape
    (torch.Size([5, 3]), torch.Size([2, 3]))
    """
    if func not in _PRODUCTS and func not in _SUMS:
        return None
    operands = [*args, *keywords.values()]
    added = operands.pop(0) if func in _SUMS else None
    inputs, matrix = operands[:2]
    if not (isinstance(inputs, Tensor) and isinstance(matrix, Tensor)):
        return None
    if inputs.dim() < 2 or matrix.dim() != 2:
        return None
    return inputs, matrix.mT, added
