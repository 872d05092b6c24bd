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

    So does `torch.einsum` of two operands, one of them a matrix: `bnd,hd->bnh`, `bchw,kc->bkhw`.

    >>> inputs, matrix, _ = factors(torch.mm, (torch.ones(5, 3), torch.ones(3, 2)), {})
    >>> inputs.shape, matrix.shape
    (torch.Size([5, 3]), torch.Size([2, 3]))
    """
    if func is torch.einsum:
        return _factors_of_einsum(*args)
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


def _factors_of_einsum(equation: Any, *operands: Any) -> Factors | None:
    """Of an equation by which one letter of the matrix takes the place of the other."""
    tensors = operands[0] if len(operands) == 1 else operands
    if not isinstance(equation, str) or len(tensors) != 2:
        return None
    given, _, out = equation.replace(" ", "").partition("->")
    sides = list(zip(given.split(","), tensors, strict=True))
    for (rows, inputs), (letters, matrix) in (sides, sides[::-1]):
        summed, of_matrix = set(rows) & set(letters), len(letters) == len(set(letters)) == 2
        replaced = len(summed) == 1 and set(rows) ^ set(out) == set(letters)
        if not (of_matrix and replaced) or inputs.dim() < 2 or out[0] not in rows:
            continue
        before, letter, after = rows.partition(summed.pop())
        columns = inputs.movedim(-1 - len(after) if "." in before else len(before), -1)
        return columns, matrix if letters[1] == letter else matrix.mT, None
    return None
