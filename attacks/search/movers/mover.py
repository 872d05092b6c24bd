"""The protocol of movers: what moves the variables of a stage toward the least objective."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from fedaudit.attacks.search.comparison import Comparison
from fedaudit.attacks.search.image_priors import GroupConsistency
from fedaudit.attacks.search.movers.gradient_descent import Schedule
from fedaudit.attacks.search.trace import Trace

Optimizer = Literal["adam", "signed_adam", "lbfgs", "cma_es", "gauss_newton"]
Decode = Callable[[Tensor], Tensor]
"""Variables `[n, …]` → images `[n, C, H, W]`."""
Penalty = Callable[[Tensor, Tensor, float], Tensor]
"""(variable, images, share of the steps that is left) → what is added to the match."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one stage moves its variables; as the settings of `Stage` that have the same names.

    Attributes:
        project: Applied to the variables `[R, …]` of an image after each step.
        seed: Of CMA-ES' sampling.
    """

    steps: int
    lr: float
    rounds: int = 4
    optimizer: Optimizer = "adam"
    memory: float = 0.999
    schedule: Schedule = "cosine"
    project: Callable[[int, Tensor], Tensor] | None = None
    patience: int = 0
    group: GroupConsistency | None = None
    population: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """What a mover works on.

    Attributes:
        matching: How far images are from explaining the update, or from their known maps.
        variables: One leaf `[R, …]` an image, in the order of the batch; changed in place.
        trace: Counts every step.
        is_exact: Whether nothing is left to be gained, asked after each step of L-BFGS.
    """

    matching: Comparison
    variables: Sequence[Tensor]
    decode: Decode
    penalty: Penalty
    trace: Trace
    is_exact: Callable[[], bool] = lambda: False


class Mover(Protocol):
    """A stage in progress, that stops after any turn and goes on from what it saved."""

    def run(self, save: Callable[[], None] = ...) -> None:
        """Move until the plan is done, stalls or time is up; calls `save` after every turn."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs; by name."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        ...
