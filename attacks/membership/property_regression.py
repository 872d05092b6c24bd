"""What a client's photos have in common, read off its update by comparison with shadow clients.

The server regresses the share that has a property on the updates of its shadow clients, of whom it
knows it (passive property inference of Melis et al., IEEE S&P 2019, who train a classifier).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedaudit.attacks.membership.shadow_clients import Shadows
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Update

RIDGE = 0.3
"""Of the regression, in units of the mean squared length of centered updates: a guess, untuned."""


def property_shares(seen: Sequence[Observation], shadows: Shadows) -> dict[str, Tensor]:
    """Predicted share of each client's photos that has each property, in one round.

    Args:
        seen: What the server saw of each client; all started from the same model.
        shadows: Shadow clients of the same round.

    Returns:
        By name of the property `[clients]`; only the order of clients means something.

    Raises:
        AttackError: A client sent no update of the whole model.
    """
    classes = int(seen[0].model.arguments["classes"])
    known, asked = (
        torch.stack([_magnitudes(one, classes) for one in side]) for side in (shadows.seen, seen)
    )
    names = list(shadows.shares)
    if not names:
        return {}
    predictions = _regress(known, torch.stack([shadows.shares[name] for name in names], 1), asked)
    return dict(zip(names, predictions.T, strict=True))


def _magnitudes(one: Observation, classes: int) -> Tensor:
    """Magnitudes of the update as a unit vector, without the head, whose rows are other people's.

    The sign of a number depends on the labels of the photos; how far it moves, on what they show.
    """
    update = next((sent for sent in one.shared if isinstance(sent, Update)), None)
    if update is None:
        raise AttackError("properties are read off each client's update, and one sent none")
    body = [t.flatten() for t in update.tensors.values() if t.ndim and t.shape[0] != classes]
    flat = torch.cat(body or [t.flatten() for t in update.tensors.values()]).double()
    unit: Tensor = flat.abs() / flat.norm().clamp_min(1e-30)
    return unit


def _regress(examples: Tensor, shares: Tensor, queries: Tensor) -> Tensor:
    """Ridge regression in its kernel form: `[S, n]`, `[S, p]`, `[C, n]` → `[C, p]`."""
    middle, mean = examples.mean(0), shares.mean(0)
    gram = (examples - middle) @ (examples - middle).T
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(examples), dtype=torch.float64)
    weights = torch.linalg.solve(gram + ridge, shares - mean)
    prediction: Tensor = mean + (queries - middle) @ (examples - middle).T @ weights
    return prediction
