"""No prior at all: every pixel is free."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Free pixels, started from gray with a little noise.

    Args:
        spread: Half the width of the uniform noise around 0.5.
    """

    spread: float = 0.1

    def start(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """A leaf `[count, C, H, W]` in [0, 1]."""
        noise = torch.rand(count, *shape, generator=generator) * 2 - 1
        return (0.5 + self.spread * noise).requires_grad_()
