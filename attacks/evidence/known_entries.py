"""Numbers of a gradient that are known where others are not, or not as exactly."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDED = 1e-7
"""Relative standard error of a number in single precision."""


@dataclass(frozen=True)
class KnownEntries:
    """Those numbers of a gradient that are known.

    Attributes:
        numbers: Like the parameter, in double precision; 0 where they are not known.
        errors: Standard errors; infinite where they are not known.
    """

    numbers: Tensor
    errors: Tensor

    @property
    def known(self) -> Tensor:
        """Which are, as booleans."""
        return self.errors.isfinite()


def kept_entries(pruned: Mapping[str, Tensor]) -> dict[str, KnownEntries]:
    """What was kept of a gradient, by parameter; what is zero was left out."""
    return {
        name: KnownEntries(
            value.double(), torch.where(value != 0, ROUNDED * value.abs(), torch.inf)
        )
        for name, value in pruned.items()
        if value.is_floating_point()
    }


def rounded_entries(
    gradient: Mapping[str, Tensor],
    sent: Mapping[str, Tensor],
    before: Mapping[str, Tensor] | None,
    steps: int,
) -> dict[str, KnownEntries]:
    """A whole gradient, with the errors that rounding left in it, by parameter.

    Each local step rounds the weights, so that a change of them that is small is known coarsely:
    at a learning rate of 1e-4, a transformer's with errors of percents.

    Args:
        gradient: The client's mean gradient.
        sent: What it follows from: like it, times the same factor for all its numbers.
        before: The weights to which `sent` is a change; None where it is a gradient.
        steps: Local steps.
    """
    entries = {}
    for name, value in gradient.items():
        change = sent[name]
        if not change.is_floating_point():
            continue
        spacing = _spacing(change)
        if before is not None and name in before:
            after = before[name].to(change) + change
            spacing = (spacing.square() + steps * _spacing(after).square()).sqrt()
        # Both differ by one factor, of learning rate and steps, and by what decay was subtracted.
        factor = value.double().norm() / change.double().norm()
        errors = factor * spacing / math.sqrt(12)
        # Of what did not change no scale is known.
        entries[name] = KnownEntries(value.double(), errors.nan_to_num(nan=math.inf))
    return entries


def _spacing(values: Tensor) -> Tensor:
    """From each number to the next that its type holds."""
    size = values.abs()
    return (torch.nextafter(size, size.new_tensor(torch.inf)) - size).double()
