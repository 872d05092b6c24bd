"""Search without derivatives: CMA-ES over latent vectors, as in GGL (Li et al., CVPR 2022).

An evaluation costs no double backward; and a plateau of the objective does not stop the search.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from fedaudit.attacks.search.comparison import free_rows
from fedaudit.attacks.search.movers.mover import Plan, Task

if TYPE_CHECKING:
    from cmaes import CMA, SepCMA

LARGE = 256
"""Variables beyond which the covariance is kept diagonal (sep-CMA-ES, Ros & Hansen 2008)."""


@dataclass
class Evolution:
    """A mover by CMA-ES.

    Args:
        task: What is searched; all images of a batch evolve together.
        plan: Generations, the first standard deviation, population, seed.
    """

    task: Task
    plan: Plan

    def __post_init__(self) -> None:
        self._starts = [
            torch.cat([v[r].detach().flatten() for v in self.task.variables]).cpu().double().numpy()
            for r in range(len(self.task.variables[0]))
        ]
        self._history: list[list[list[float]]] = [[] for _ in self._starts]

    def run(self, save: Callable[[], None] = lambda: None) -> None:
        """Evolve every restart until the plan is done or time is up; variables end at the best."""
        # NumPy's own threads spin while torch works.
        with threadpool_limits(torch.get_num_threads()):
            self._evolve(save)

    def _evolve(self, save: Callable[[], None]) -> None:
        strategies = [self._strategy(start, r) for r, start in enumerate(self._starts)]
        bests = [self._replay(strategies[r], history) for r, history in enumerate(self._history)]
        while len(self._history[-1]) < self.plan.steps and not self.task.trace.time_is_up:
            for r, strategy in enumerate(strategies):
                vectors = [strategy.ask() for _ in range(strategy.population_size)]
                values = [self._value(vector, r) for vector in vectors]
                strategy.tell(list(zip(vectors, values, strict=True)))
                self._history[r].append(values)
                bests[r] = min(
                    bests[r], (min(values), vectors[int(np.argmin(values))]), key=itemgetter(0)
                )
            self.task.trace.add(min(value for value, _ in bests))
            save()
        with torch.no_grad():
            for r, (_, vector) in enumerate(bests):
                for variable, part in zip(self.task.variables, self._parts(vector, r), strict=True):
                    variable[r].copy_(part)

    def state(self) -> dict[str, Tensor]:
        """The values told so far: with the seed they are the whole history."""
        return {"told": torch.tensor(self._history, dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._history = state["told"].tolist()

    def _strategy(self, start: np.ndarray, restart: int) -> "CMA | SepCMA":
        from cmaes import CMA, SepCMA  # noqa: PLC0415 - half a second that other attacks save

        kind = SepCMA if len(start) > LARGE else CMA
        seed = (self.plan.seed + restart) % 2**32
        return kind(start, self.plan.lr, seed=seed, population_size=self.plan.population)

    def _replay(
        self, strategy: "CMA | SepCMA", history: Sequence[Sequence[float]]
    ) -> tuple[float, np.ndarray]:
        """Bring a strategy to where the told values have led it; returns the best it has seen."""
        best = (float("inf"), strategy.mean)
        for values in history:
            vectors = [strategy.ask() for _ in values]
            strategy.tell(list(zip(vectors, values, strict=True)))
            best = min(best, (min(values), vectors[int(np.argmin(values))]), key=itemgetter(0))
        return best

    def _value(self, vector: np.ndarray, restart: int) -> float:
        with torch.no_grad():
            variable = torch.stack(self._parts(vector, restart))
            images = self.task.decode(variable)
        every = range(len(self.task.variables))
        free = [row.detach() for row in free_rows(self.task.matching, every, restart)]
        dummy, distance = self.task.matching.gradients(images, every, free, differentiable=False)
        value = self.task.matching.objective(dummy, distance)
        value = value + self.task.penalty(variable, images, 1.0)
        return float(value.detach())

    def _parts(self, vector: np.ndarray, restart: int) -> list[Tensor]:
        like = self.task.variables[0][restart]
        flat = torch.from_numpy(vector).to(like)
        return [part.view(like.shape) for part in torch.split(flat, like.numel())]
