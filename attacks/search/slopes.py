"""Whether images can be searched by slopes through a network at all."""

from collections.abc import Sequence

import torch
from torch import nn

from fedaudit.attacks.evidence.deterministic_mode import deterministic
from fedaudit.attacks.search.movers.mover import Optimizer
from fedaudit.core.errors import AttackError

BY_SLOPE: frozenset[Optimizer] = frozenset({"adam", "signed_adam", "lbfgs", "gauss_newton"})
"""Optimizers that ask how the comparison changes with each pixel."""


def check_slopes(model: nn.Module, shape: Sequence[int]) -> None:
    """Refuse a network that cuts its scores off from the images, before priors alone draw them.

    Args:
        model: In the client's mode.
        shape: `(C, H, W)`.

    Raises:
        AttackError: No slope comes back to the images.
    """
    like = next(model.parameters())
    images = torch.full((2, *shape), 0.5).to(like).requires_grad_()
    with deterministic(model):
        scores = model(images)
    slope = None
    if scores.requires_grad:
        (slope,) = torch.autograd.grad(scores.sum(), images, allow_unused=True)
    if slope is None:
        raise AttackError(
            "the network cuts its scores off from the images (by torch.no_grad, detach or "
            "whole numbers in its forward pass), so that no search can move them by slopes. Take "
            "that out of the forward pass: what is frozen has requires_grad = False anyway."
        )
