"""Numbers of a gradient that are known where others are not."""

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
        errors: Relative standard errors; infinite where they are not known.
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
        name: KnownEntries(value.double(), torch.where(value != 0, ROUNDED, torch.inf))
        for name, value in pruned.items()
        if value.is_floating_point()
    }
