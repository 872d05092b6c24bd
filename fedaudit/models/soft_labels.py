"""Labels that are class probabilities, for any training loss."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_on(
    criterion: Callable[[Tensor, Tensor], Tensor], scores: Tensor, labels: Tensor
) -> Tensor:
    """The criterion, or its expectation where labels are drawn.

    A margin enters where a label is, so that the loss of a margin head is no function of
    probabilities: Σ_k p_k · loss(k) is what a mixture of labels means for every head.

    Args:
        criterion: Scores `[n, K]` and labels `[n]` → mean loss.
        scores: `[N, K]`.
        labels: `[N]` int64; or `[N, k]` probabilities of the first k ≤ K classes, 0 for others.
    """
    if labels.dim() == 1:
        return criterion(scores, labels)

    def one(row: Tensor, label: Tensor) -> Tensor:
        return criterion(row[None], label[None])

    classes = torch.arange(labels.shape[1], device=scores.device)
    each = torch.func.vmap(torch.func.vmap(one, in_dims=(None, 0)), in_dims=(0, None))
    return (each(scores, classes) * labels).sum(1).mean()


def probabilities(labels: Tensor, classes: int | None = None) -> Tensor:
    """Labels `[N]` or `[N, k]` as probabilities `[N, classes]`, at least as wide as labels need.

    >>> probabilities(torch.tensor([1, 0])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    soft = F.one_hot(labels).float() if labels.dim() == 1 else labels
    return F.pad(soft, (0, max(0, (classes or 0) - soft.shape[1])))


def most_likely(labels: Tensor) -> Tensor:
    """`[N]` labels, the most probable ones of `[N, k]`."""
    return labels if labels.dim() == 1 else labels.argmax(1)
