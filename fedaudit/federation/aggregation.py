"""The server's average, weighted by each client's number of images."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.core.shared import Buffers, Update


def mean_buffers(shared: Sequence[Buffers]) -> dict[str, Tensor]:
    """Weighted mean of the clients' running statistics; counters of steps are left out."""
    first = shared[0].tensors if shared else {}
    return _mean(shared, [name for name, value in first.items() if value.is_floating_point()])


def mean_update(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Weighted mean of what the clients sent, by parameter name."""
    return _mean(updates, updates[0].tensors)


def _mean(payloads: Sequence[Update | Buffers], names: Iterable[str]) -> dict[str, Tensor]:
    """Clients that do not state a number of examples weigh one each."""
    weights = [float(one.examples or 1) for one in payloads]
    total = sum(weights)
    return {
        name: torch.stack(
            [one.tensors[name] * (w / total) for one, w in zip(payloads, weights, strict=True)]
        ).sum(0)
        for name in names
    }


def add_mean(before: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
    """`before` + the weighted mean of the clients' deltas; what nobody sent stays as it was."""
    mean = mean_update(updates)
    return {k: v + mean[k] if k in mean else v for k, v in before.items()}
