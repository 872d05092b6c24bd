"""Which place, and which photo, each token of a batch is of: each place of each has one token."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

TIE = 1e-9
"""By which assignments differ that cost the same but for rounding."""


def assign(cost: Tensor) -> Tensor:
    """The column of each row, each column once, at least cost.

    Tokens that stand for two have rows that differ by rounding, which another run does otherwise:
    of these the first goes to the last column.
    """
    rows, columns = (torch.arange(n).to(cost) for n in cost.shape)
    chosen: Tensor = torch.as_tensor(
        linear_sum_assignment((cost + TIE * rows[:, None] * columns).numpy())[1]
    )
    return chosen


def deal(cost: Tensor) -> Tensor:
    """The photo of each token, by its cost in each, `[n, N]`: as many tokens to each photo."""
    count = cost.shape[1]
    return assign(cost.repeat(1, len(cost) // count)) % count


def cluster(features: Tensor, members: list[Tensor], count: int) -> Tensor:
    """The photo of each token, as many of each group a photo: k-means from several starts."""
    best, least = torch.zeros(len(features), dtype=torch.int64), float("inf")
    starts = [first for rows in members for first in rows.view(-1, count)]
    for first in starts[:: max(1, len(starts) // 8)]:
        centers, photo = features[first], torch.zeros_like(best)
        for _ in range(20):
            cost = 0.0
            for rows in members:
                distances = torch.cdist(features[rows], centers).square()
                photo[rows] = deal(distances)
                cost += float(distances[range(len(rows)), photo[rows]].sum())
            centers = torch.stack([features[photo == i].mean(0) for i in range(count)])
        if cost < least:
            best, least = photo.clone(), cost
    return best
