"""The server's average, weighted by each client's number of images."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.core.shared import Buffers, Update


def mean_buffers(shared: Sequence[Buffers]) -> dict[str, Tensor]:
    """Weighted mean of the clients' running statistics; counters of steps are left out.

    Clients that do not state a number of examples weigh one each.
    """
    weights = [float(buffers.examples or 1) for buffers in shared]
    total = sum(weights)
    first = shared[0].tensors if shared else {}
    return {
        name: torch.stack(
            [b.tensors[name] * (w / total) for b, w in zip(shared, weights, strict=True)]
        ).sum(0)
        for name, value in first.items()
        if value.is_floating_point()
    }


def mean_update(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Weighted mean of what the clients sent, by parameter name.

    Clients that do not state a number of examples weigh one each.
    """
    weights = [float(update.examples or 1) for update in updates]
    total = sum(weights)
    names = updates[0].tensors
    return {
        name: torch.stack(
            [u.tensors[name] * (w / total) for u, w in zip(updates, weights, strict=True)]
        ).sum(0)
        for name in names
    }


def add_mean(before: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
    """`before` + the weighted mean of the clients' deltas; what nobody sent stays as it was."""
    mean = mean_update(updates)
    return {k: v + mean[k] if k in mean else v for k, v in before.items()}
