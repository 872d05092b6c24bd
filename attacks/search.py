"""First-order search over whatever variables an attack chose."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Progress = Callable[[int, int, float], None]


def cosine_ramp(step: int, steps: int) -> float:
    """Factor on the learning rate: up over the first 5 %, then down as a half cosine."""
    return (
        min(1.0, (step + 1) / max(1.0, 0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )


def step_decay(step: int, steps: int) -> float:
    """×0.1 after 3/8, 5/8 and 7/8 of the steps (Geiping et al. 2020)."""
    return float(0.1 ** sum(step >= q * steps for q in (3 / 8, 5 / 8, 7 / 8)))


@dataclass
class Search:
    """Adam on some leaf tensors; keeps the best value that its own loss has seen.

    Args:
        variables: Leaf tensors with gradients, changed in place.
        lr: Peak learning rate, one for all variables or one each.
        steps: Number of steps that the schedule spans.
        schedule: (step, steps) → factor on `lr`.
        signed: Step along the sign of the gradient, as Geiping et al. do.
        box: Clamp the first `boxed` variables to this range after each step.
        boxed: How many variables lie in the box.
    """

    variables: Sequence[Tensor]
    lr: float | Sequence[float]
    steps: int
    schedule: Callable[[int, int], float] = cosine_ramp
    signed: bool = False
    box: tuple[float, float] | None = None
    boxed: int = 1

    def __post_init__(self) -> None:
        rates = [self.lr] * len(self.variables) if isinstance(self.lr, float) else list(self.lr)
        self._rates = rates
        self._optimizer = torch.optim.Adam(
            [{"params": [v], "lr": rate} for v, rate in zip(self.variables, rates, strict=True)]
        )
        self.done = 0
        self.best = float("inf")
        self._kept = [v.detach().clone() for v in self.variables]

    def step(self, loss: Tensor) -> float:
        """One step down `loss`, which was computed from the variables as they are."""
        value = float(loss.detach())
        if value < self.best:
            self.best = value
            self._kept = [v.detach().clone() for v in self.variables]
        factor = self.schedule(self.done, self.steps)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        for variable, grad in zip(
            self.variables, torch.autograd.grad(loss, list(self.variables)), strict=True
        ):
            variable.grad = grad.sign() if self.signed else grad
        self._optimizer.step()
        if self.box is not None:
            with torch.no_grad():
                for variable in self.variables[: self.boxed]:
                    variable.clamp_(*self.box)
        self.done += 1
        return value

    def restore(self) -> None:
        """Set the variables to the best values seen."""
        with torch.no_grad():
            for variable, kept in zip(self.variables, self._kept, strict=True):
                variable.copy_(kept)
