"""Which reconstruction stands for which original, without looking at the headline metric."""

from collections import Counter

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedaudit.scoring.copies import UNCALIBRATED

LABEL_MISMATCH = 1e3
"""Outweighs any squared error, so that labels decide wherever the attack has the right ones."""


def pair(
    originals: Tensor,
    labels: Tensor,
    reconstructions: Tensor,
    guessed: Tensor,
    copy_psnr: float = UNCALIBRATED,
) -> tuple[int, ...]:
    """For each original, the index of its reconstruction.

    Copies of originals come first, then labels, and among equals the assignment with the least
    squared error. An attack that rebuilds a photo and takes it for somebody else's has leaked it
    all the same, and chance makes no copies (`fedaudit.scoring.copies`). Never the identity cosine:
    matching by a metric that is reported would inflate it.

    Args:
        originals: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the originals' own.
        reconstructions: `[M, C, H, W]` in [0, 1], N or more.
        guessed: `[M]`, what the attack took for their labels; -1 for none.
        copy_psnr: PSNR in dB above which an image is a copy; infinity: nothing is.

    Example:
        >>> photos = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
        >>> pair(photos, torch.tensor([4, 7]), 0.5 + 0.1 * photos, torch.tensor([7, 4]))
        (1, 0)
        >>> pair(photos, torch.tensor([4, 7]), photos, torch.tensor([7, 4]))
        (0, 1)
    """
    # In double precision, because beside a mismatch of 1e3 single has steps of 6e-5.
    ours, theirs = originals.flatten(1).double(), reconstructions.flatten(1).double()
    error = torch.cdist(ours, theirs).square()
    error = error / originals[0].numel()
    is_copy = error < 10 ** (-copy_psnr / 10)
    cost = error + LABEL_MISMATCH * (labels[:, None] != guessed[None, :])
    cost -= LABEL_MISMATCH * (len(originals) + 1) * is_copy  # one outweighs all labels
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
