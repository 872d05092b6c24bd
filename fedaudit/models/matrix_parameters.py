"""Which parameters a matrix is made of that a forward pass multiplies by."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """How a matrix `[K, D]` comes of parameters.

    Attributes:
        name: Of the parameter whose rows, or columns, these are.
        transposed: It is `[D, K]`.
        unit: They are brought to length 1.
        length: Name of the parameter that is each row's length, or that of all rows as one, where
            `name` is of directions.
    """

    name: str
    transposed: bool = False
    unit: bool = False
    length: str | None = None


def name_of(tensor: Tensor, own: Parameters) -> str | None:
    """Name of the parameter that a tensor is, or shows; None for none."""
    return next((name for name, p in own.items() if _is_view(tensor, p)), None)


def rows_of(matrix: Tensor, own: Parameters, inputs: Tensor | None = None) -> Rows | None:
    """What a matrix `[K, D]` is made of; None where it is something else.

    Rows are said to be brought to length 1 where `inputs` `[N, D]` are, too: products are cosines.
    """
    if (name := name_of(matrix, own)) is not None:
        return Rows(name, not _same(matrix, own[name], unit=False))
    if inputs is not None and _has_unit_rows(inputs):
        name = next((n for n, p in own.items() if _is_unit(matrix, p)), None)
        if name is not None:
            return Rows(name, not _same(matrix, own[name], unit=True), unit=True)
    for name, rows in own.items():
        if rows.dim() < 2 or rows.flatten(1).shape != matrix.shape:
            continue
        for length, values in own.items():
            if values.shape not in ((), (len(rows), *(1,) * (rows.dim() - 1))):
                continue
            directions = rows.flatten(1) / norms_of(rows.flatten(1), values)
            if torch.allclose(matrix, values.reshape(-1, 1) * directions, atol=1e-5):
                return Rows(name, length=length)
    return None


def norms_of(rows: Tensor, length: Tensor) -> Tensor:
    """Norms of rows `[K, D]`: `[K, 1]`, or, where their `length` is one number, `[1, 1]` of all."""
    dim = 1 if length.dim() else None
    norms: Tensor = torch.linalg.vector_norm(rows, dim=dim, keepdim=True)
    return norms.clamp_min(1e-12)


def _is_view(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether both are the same numbers in memory."""
    same = tensor.data_ptr() == parameter.data_ptr() and tensor.numel() == parameter.numel()
    return same and tensor.numel() > 0


def _is_unit(matrix: Tensor, parameter: Tensor) -> bool:
    """Whether the matrix is the parameter with rows, or columns, brought to length 1."""
    if parameter.dim() != 2 or sorted(parameter.shape) != sorted(matrix.shape):
        return False
    return _same(matrix, parameter, True) or _same(matrix, parameter.T, True)


def _same(matrix: Tensor, parameter: Tensor, unit: bool) -> bool:
    if matrix.shape != parameter.flatten(1).shape:
        return False
    rows = parameter.flatten(1)
    return torch.allclose(matrix, F.normalize(rows, dim=1) if unit else rows, atol=1e-5)


def _has_unit_rows(inputs: Tensor) -> bool:
    return torch.allclose(inputs.norm(dim=1), inputs.new_ones(len(inputs)), atol=1e-4)
