"""What rows of a gradient miss of a direction of their own, where there are more than positions.

A standardized layer's gradient lacks of each row its part along the row of the weight
(`derived_weights`). With it, a matrix of P positions has rank P, and no other multiples of these
directions make it so.
"""

import torch
from torch import Tensor

ROUNDS = 100
"""At most. BiT's layers settle in 10 to 30; those of hardly more rows than positions take most."""
SETTLED = 1e-9
"""Largest change of a round, relative to the longest row, that ends it: rounding is above it."""


def own_directions(matrix: Tensor, along: Tensor, rank: int) -> Tensor:
    """What to add to `matrix` `[g, r, F]`, of each row a multiple of its direction, for a low rank.

    In turn: the span of `rank` dimensions that is nearest to the rows, and for each row the
    multiple that is nearest to this span.

    Args:
        matrix: Of more rows than `rank`.
        along: `[g, r, F]`; rows of length 1, or 0 where nothing is to be added.
        rank: Of the sum.
    """
    put = torch.zeros_like(matrix)
    longest = matrix.norm(dim=2).max()
    for _ in range(ROUNDS):
        _, basis = leading_rows(matrix + put, rank)
        basis = basis[:, :rank]
        outside = along - along @ basis.mT @ basis
        free = (outside * along).sum(2, keepdim=True)
        size = -(matrix * outside).sum(2, keepdim=True) / free.clamp_min(SETTLED)
        change = (size * along - put).norm(dim=2).max()
        put = size * along
        if change <= SETTLED * longest:
            break
    return put


def leading_rows(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The largest singular values `[g, m]` and right singular vectors `[g, m, F]` of `[g, r, F]`.

    All of them by the Gram matrix, which costs a tenth; what it loses lies below
    `span_spectrum.PRECISION`. Where few of many are wanted, by subspace iteration (Halko et al.,
    SIAM Review 2011).
    """
    if 4 * rank < min(matrix.shape[1:]):
        start = torch.randn(matrix.shape[1], rank, generator=torch.Generator().manual_seed(0))
        basis = matrix.mT @ start.to(matrix)
        for _ in range(2):
            basis = matrix.mT @ (matrix @ torch.linalg.qr(basis).Q)
        basis = torch.linalg.qr(basis).Q
        _, sizes, rows = torch.linalg.svd(matrix @ basis, full_matrices=False)
        return sizes, rows @ basis.mT
    if matrix.shape[1] > matrix.shape[2]:
        matrix = torch.linalg.qr(matrix).R
    squares, left = torch.linalg.eigh(matrix @ matrix.mT)
    sizes = squares.flip(1).clamp_min(0).sqrt()
    rows = left.flip(2).mT @ matrix
    rows = rows / sizes[..., None].clamp_min(1e-300)
    # Small ones are orthogonal to the others up to the square of what they are smaller by.
    return sizes, torch.linalg.qr(rows.mT).Q.mT
