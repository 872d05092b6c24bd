"""Inverting gradients: free pixels, cosine distance, total variation (Geiping et al. 2020)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from fedaudit.attacks.adaptive import how_adaptive
from fedaudit.attacks.evidence import gather
from fedaudit.attacks.matching import Matching
from fedaudit.attacks.objectives import cosine_distance, total_variation
from fedaudit.attacks.priors.pixels import Pixels
from fedaudit.attacks.search import Progress, Search, cosine_ramp, step_decay
from fedaudit.types import Knowledge, Observation, Reconstruction, Update

SCHEDULES: dict[str, Callable[[int, int], float]] = {"step": step_decay, "cosine": cosine_ramp}


@dataclass(frozen=True, kw_only=True)
class InvertingGradients:
    """Search the pixels whose gradient points where the client's does.

    Geiping et al. (NeurIPS 2020): minimize 1 − cosine(trial gradient, shared gradient) + total
    variation, with Adam on the sign of the derivative, in the box of valid images. Labels are
    inferred first, in closed form. This is the published attack: it uses nothing but the gradient.

    Args:
        steps: Optimization steps.
        lr: Peak step size, in units of the pixel range [0, 1].
        total_variation: Weight of the total variation (mean absolute difference of neighbors).
        schedule: "cosine", or "step" as published.
        restarts: Independent starts; the one with the least objective is returned.
    """

    steps: int = 350
    lr: float = 0.1
    total_variation: float = 0.05
    schedule: Literal["cosine", "step"] = "cosine"
    restarts: int = 1

    needs: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.MODEL, Knowledge.BASIC})
    reads: ClassVar[frozenset[type]] = frozenset({Update})

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError("steps and restarts must be at least 1")
        if self.lr <= 0 or self.total_variation < 0:
            raise ValueError("lr must be > 0 and total_variation ≥ 0")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}")

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Reconstruction:
        """Reconstruct the batch behind one update."""
        started = time.process_time()
        evidence = gather(seen)
        every = range(evidence.count)
        prior = Pixels()
        best, images, history, evaluations = float("inf"), torch.empty(0), [], 0
        for restart in range(self.restarts):
            matching = Matching(evidence, use_entry=False, generator=generator)
            pixels = prior.start(evidence.count, evidence.shape, generator)
            search = Search(
                [pixels, *matching.free],
                self.lr,
                self.steps,
                SCHEDULES[self.schedule],
                signed=True,
                box=(0.0, 1.0),
            )
            for step in range(self.steps):
                trial, _ = matching.gradients(pixels, every)
                loss = cosine_distance(trial, matching.target)
                value = search.step(loss + self.total_variation * total_variation(pixels))
                if step % 10 == 0 or step == self.steps - 1:
                    history.append((restart * self.steps + step, value))
                    if progress:
                        progress(restart * self.steps + step, self.restarts * self.steps, value)
            search.restore()
            evaluations += matching.evaluations
            if search.best < best:
                best, images = search.best, pixels.detach().clone()
        return Reconstruction(
            images=images,
            labels=torch.full((evidence.count,), -1)
            if evidence.labels is None
            else evidence.labels,
            objective=best,
            iterations=self.steps * self.restarts,
            gradient_evaluations=evaluations,
            seconds=time.process_time() - started,
            adaptive=how_adaptive(seen),
            history=tuple(history),
        )
