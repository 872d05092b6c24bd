"""The first singular vectors of a large matrix of low rank, in a fraction of the whole's time."""

import torch
from torch import Tensor

SMALL = 256
"""Rows or columns up to which the whole decomposition costs nothing."""
MORE = 8
"""Directions that are carried along beside those that are asked for."""
PASSES = 4
"""Multiplications by the matrix and its transpose."""


def leading_svd(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """U `[K, n]`, sizes `[n]` and Vᵀ `[n, D]` of `matrix` `[K, D]`, n ≤ `count`, largest first.

    By subspace iteration (Halko et al., SIAM Review 2011, algorithm 4.4) where the matrix is large;
    the same numbers whenever it is called.
    """
    rank = count + MORE
    if min(matrix.shape) <= max(SMALL, rank):
        left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :count], sizes[:count], right[:count]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], rank, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(matrix @ start.to(matrix)).Q
    for _ in range(PASSES):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, sizes, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ left)[:, :count], sizes[:count], right[:count]
