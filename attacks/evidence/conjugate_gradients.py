"""Linear systems of a symmetric positive operator, by conjugate gradients."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Parts = list[Tensor]
"""A vector, in parts of any shapes."""


def conjugate_gradients(
    apply: Callable[[Parts], Sequence[Tensor]],
    right: Sequence[Tensor],
    *,
    steps: int,
    tolerance: float,
    start: Sequence[Tensor] | None = None,
    precondition: Callable[[Parts], Sequence[Tensor]] = list,
) -> Parts:
    """The vector that `apply` sends to `right`, nearly (Hestenes & Stiefel 1952).

    Args:
        apply: A symmetric positive operator.
        right: In parts.
        steps: At most.
        tolerance: Length of what is left, by that of `right`, at which it ends.
        start: To begin with; zero if None.
        precondition: Symmetric, and near the inverse of `apply`.

    Example:
        >>> matrix, right = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([3.0, 4.0])
        >>> found = conjugate_gradients(lambda x: [matrix @ x[0]], [right], steps=2, tolerance=0)
        >>> found[0].round(decimals=3)
        tensor([1., 1.])
    """
    left, found = list(right), [torch.zeros_like(one) for one in right]
    if start is not None:
        found = list(start)
        left = [one - two for one, two in zip(right, apply(found), strict=True)]
    enough = tolerance**2 * _product(right, right)
    way: Parts = []
    size = 0.0
    for step in range(steps):
        if _product(left, left) <= enough:
            break
        near = list(precondition(left))
        before, size = size, _product(left, near)
        if step:
            near = [one + size / before * two for one, two in zip(near, way, strict=True)]
        way = near
        image = list(apply(way))
        length = size / _product(way, image)
        found = [one + length * two for one, two in zip(found, way, strict=True)]
        left = [one - length * two for one, two in zip(left, image, strict=True)]
    return found


def _product(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))
