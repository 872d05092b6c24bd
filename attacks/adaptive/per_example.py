"""What the images of a batch contribute to its mean gradient."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.adaptation import through
from fedaudit.defenses.gradient_transforms import GradientTransform

Gradients = tuple[Tensor, ...]
"""A tensor a parameter."""


def total(parts: Sequence[Gradients]) -> Gradients:
    """Sum of gradient shares, parameter by parameter."""
    return tuple(reduce(torch.add, tensors) for tensors in zip(*parts, strict=True))


def weigh(
    shares: Sequence[Gradients], each: Sequence[GradientTransform], count: int, names: Sequence[str]
) -> Gradients:
    """The sum of `shares` of single images after `each`, as clipping weighs them against each
    other.

    A share is an image's gradient divided by `count`, the images of the batch.
    """
    whole = [[share * count for share in one] for one in shares]
    return total([tuple(value / count for value in through(each, one, names)) for one in whole])
