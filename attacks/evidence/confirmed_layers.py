"""Whether weight gradients are made of what enters the layers: tried on gradients of our own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_unfolding import (
    READABLE,
    Applied,
    is_centered,
    matrices_of,
    rows_of,
    share_outside,
)

CONFIRMED = 1e-2
"""Share of a gradient of our own that may lie outside of its inputs' span, by rounding."""


@dataclass(frozen=True)
class Position:
    """Where a weight is used.

    Attributes:
        positions: How many rows an image sends there.
        width: Numbers a row; one less of rows whose mean is open.
        certain: Nothing random (dropout, stochastic depth) comes before it.
        order: Place in the order of the forward pass.
    """

    positions: int
    width: int
    certain: bool
    order: int


def confirm(
    gradients: Mapping[str, Tensor],
    heard: Mapping[str, Sequence[tuple[nn.Module, Tensor]]],
    layers: Mapping[str, Sequence[nn.Module]],
    *,
    images: int,
    count: int,
    certain: Collection[str],
) -> tuple[dict[str, Position], set[str]]:
    """The weights whose gradient is made of their inputs, and those that belie it.

    Args:
        gradients: By weight; of those that have one.
        heard: The layers that use each weight, with what enters them, in order of use.
        layers: That hold each weight.
        images: That were sent through.
        count: N, the images of the batch that is attacked.
        certain: Weights before anything random.
    """
    positions_by_name, refuted = {}, set()
    for order, name in enumerate(heard):
        gradient = gradients.get(name)
        if gradient is None:
            continue
        rows = torch.cat([rows_of(m, x.detach()) for m, x in heard[name]], 1)
        positions, width = rows.shape[1] // images, rows.shape[2]
        width -= is_centered(layers[name][0])
        if count * positions >= width:
            continue  # rows that fill the space say nothing
        matrix = matrices_of(layers[name][0], gradient)
        if matrix.shape[2] == rows.shape[2] and share_outside(matrix, rows) < CONFIRMED:
            positions_by_name[name] = Position(positions, width, name in certain, order)
        elif type(layers[name][0]) not in (*READABLE, Applied):
            refuted.add(name)  # of torch's own layers it is rounding
    return positions_by_name, refuted
