"""Completion of a matrix of low rank, of which only some entries are known.

A matrix of rank N is the product of few numbers. Alternating least squares fits both factors to the
known entries, one after the other.
"""

import torch
from torch import Tensor

COMPLETIONS = 100
"""Iterations: each fits both factors once."""
UNEXPLAINED = 0.1
"""Largest relative residual of a completion: without noise it is exact, or far off."""


def complete_rows(matrix: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """Row space `[N, F]` of the matrix of rank N that agrees with the known entries; None without.

    Columns of which fewer than N entries are known stay 0; also returns which the others are.

    Args:
        matrix: `[D, F]`, 0 where it is not known.
        mask: `[D, F]`, 1 where it is known, else 0.
        count: N.
    """
    columns = (mask.sum(0) >= count).to(matrix)
    matrix, mask = matrix * columns, mask * columns
    if int(columns.sum()) <= count or count >= min(matrix.shape):
        return None
    toward = torch.linalg.svd(matrix, full_matrices=False)[0][:, :count]
    rows = matrix[:count]
    for _ in range(COMPLETIONS):
        rows = _fit(matrix.T, mask.T, toward).T * columns
        rows = torch.linalg.svd(rows, full_matrices=False)[2]
        toward = _fit(matrix, mask, rows.T)
    left = (matrix - mask * (toward @ rows)).norm() / matrix.norm()
    # Written so that NaN, from a singular system, counts as a failure.
    return (rows, columns) if left < UNEXPLAINED else None


def _fit(matrix: Tensor, mask: Tensor, other: Tensor) -> Tensor:
    """`[R, N]`: each row's factors, by least squares over the entries of it that are known."""
    products = other[:, :, None] * other[:, None]
    gram = torch.tensordot(mask, products, 1)
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).mean() * torch.eye(other.shape[1]).to(gram)
    factors: Tensor = torch.linalg.solve(gram + ridge, (matrix @ other)[..., None])[..., 0]
    return factors
