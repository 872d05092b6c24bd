"""What a secure aggregator outputs: the weighted sum of what clients put in."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.core.shared import Aggregate, Buffers, Returns, Update

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


def sum_securely(returns: Returns, add: Adds = weighted_sum) -> tuple[Aggregate, ...]:
    """What a secure aggregator outputs: updates and buffers summed, weighted by images.

    Clients that do not state a number of examples weigh one each. `add` is the sum as the
    aggregator computes it.
    """
    sums = []
    for kind in (Update, Buffers):
        payloads = [next((s for s in shared if isinstance(s, kind)), None) for shared in returns]
        parts = [part for part in payloads if part is not None]
        if not parts:
            continue
        weights = tuple(float(part.examples or 1) for part in parts)
        terms = [
            {n: value for n, value in part.tensors.items() if value.is_floating_point()}
            for part in parts
        ]
        tensors = add(terms, weights)
        first = parts[0]
        sums.append(
            Aggregate(first.kind if isinstance(first, Update) else "buffers", tensors, weights)
        )
    return tuple(sums)


def mean_of(total: Aggregate) -> Update | Buffers:
    """A secure sum as the update (or buffers) of all clients; a sum of weights is refused."""
    over = sum(total.weights)
    tensors = {name: value / over for name, value in total.tensors.items()}
    if total.kind == "buffers":
        return Buffers(tensors, round(over))
    if total.kind == "weights":
        raise ValueError("a sum of weights is no update: subtract what the server had sent")
    return Update(total.kind, tensors, round(over))
