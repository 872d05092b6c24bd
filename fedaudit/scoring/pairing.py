"""Which reconstruction stands for which original, without looking at the headline metric."""

from collections import Counter

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

LABEL_MISMATCH = 1e3
"""Outweighs any squared error, so that labels decide wherever the attack has the right ones."""


def pair(
    originals: Tensor, labels: Tensor, reconstructions: Tensor, guessed: Tensor
) -> tuple[int, ...]:
    """For each original `[N, C, H, W]`, the index of its reconstruction.

    Labels `[N]` that the attack guessed (-1 for none) come first; among equals the assignment with
    the least squared error. Never the identity cosine: matching by a metric that is reported would
    inflate it.
    """
    # In double precision, because beside a mismatch of 1e3 single has steps of 6e-5.
    ours, theirs = originals.flatten(1).double(), reconstructions.flatten(1).double()
    error = torch.cdist(ours, theirs).square()
    error = error / originals[0].numel()
    cost = error + LABEL_MISMATCH * (labels[:, None] != guessed[None, :])
    return tuple(int(column) for column in linear_sum_assignment(cost.numpy())[1])


def labels_recovered(labels: Tensor, guessed: Tensor) -> float | None:
    """Share of the label multiset that was recovered; None where no label was attempted.

    >>> labels_recovered(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 2]))
    0.75
    """
    if bool((guessed < 0).all()):
        return None
    common = Counter(labels.tolist()) & Counter(guessed.tolist())
    return common.total() / len(labels)
