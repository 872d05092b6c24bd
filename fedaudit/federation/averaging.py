"""The server's average, weighted by each client's number of images."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.types import Aggregate, Buffers, Shared, Update


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


Adds = Callable[[Sequence[Mapping[str, Tensor]], Sequence[float]], dict[str, Tensor]]
"""The weighted sum of what clients put in, by name."""


def weighted_sum(
    parts: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Σ w_k · t_k, by name, in floating point."""
    return {
        name: torch.stack([part[name] * w for part, w in zip(parts, weights, strict=True)]).sum(0)
        for name in parts[0]
    }


def sum_securely(
    returns: Sequence[tuple[Shared, ...]], add: Adds = weighted_sum
) -> tuple[Aggregate, ...]:
    """What a secure aggregator outputs: updates and buffers summed, weighted by images.

    Clients that do not state a number of examples weigh one each.

    Args:
        returns: What each client sent.
        add: The sum as the aggregator computes it; plainly, where only its output matters.
    """
    sums = []
    for kind in (Update, Buffers):
        sent = [next((s for s in shared if isinstance(s, kind)), None) for shared in returns]
        parts = [part for part in sent if part is not None]
        if not parts:
            continue
        weights = tuple(float(part.examples or 1) for part in parts)
        summed = [
            {n: value for n, value in part.tensors.items() if value.is_floating_point()}
            for part in parts
        ]
        tensors = add(summed, weights)
        first = parts[0]
        sums.append(
            Aggregate(first.kind if isinstance(first, Update) else "buffers", tensors, weights)
        )
    return tuple(sums)


def mean_of(total: Aggregate) -> Update | Buffers:
    """A secure sum as the update (or buffers) of all clients together.

    Raises:
        ValueError: The sum is of weights, which are no update.
    """
    over = sum(total.weights)
    tensors = {name: value / over for name, value in total.tensors.items()}
    if total.kind == "buffers":
        return Buffers(tensors, round(over))
    if total.kind == "weights":
        raise ValueError("a sum of weights is no update: subtract what the server had sent")
    return Update(total.kind, tensors, round(over))
