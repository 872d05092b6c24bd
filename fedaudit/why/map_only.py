"""An attack for cuts that leave nothing but the map: the embedding's gradient, and no body's.

The engine matches gradients of the body, and refuses an update that has none. Yet the gradient of
the first fully connected layer gives away the whole feature map that enters it (`feature_maps`).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.map_matching import goal_of
from fedaudit.attacks.search.movers.gradient_descent import Search
from fedaudit.core.errors import AttackError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Shared, Update
from fedaudit.models.facenet import require_face_net


@dataclass(frozen=True, kw_only=True)
class MapOnly:
    """Pixels that have the known map: feature inversion (Mahendran & Vedaldi, CVPR 2015).

    It is an attack for `fedaudit.why` alone: beside a body the engine's attacks do better.

    Args:
        steps: Of Adam on the sign of the derivative, for all images at once.
        lr: Peak step size, in units of the pixel range [0, 1].
        total_variation: Weight of the mean absolute difference of neighbors.
    """

    steps: int = 150
    lr: float = 0.05
    total_variation: float = 0.5

    needs: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.MODEL, Knowledge.BASIC})
    reads: ClassVar[frozenset[type[Shared]]] = frozenset({Update})

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> Reconstruction:
        """Reconstruct; where the embedding's gradient gives no map away (noise), the start is all.

        Raises:
            AttackError: The update does not have the embedding.
        """
        clock = time.process_time()
        evidence = gather(seen)
        model = require_face_net(evidence.model, "a map").requires_grad_(False)
        if "embedding.weight" not in evidence.target:
            raise AttackError("the embedding was not shared, so no map of an image is known")
        goal = goal_of(evidence)
        start = torch.rand(evidence.count, *evidence.shape, generator=generator) * 0.1 + 0.45
        labels = seen.labels if evidence.labels is None else evidence.labels
        labels = torch.full((evidence.count,), -1) if labels is None else labels.cpu()
        if goal is None:
            return Reconstruction(start, labels, objective=1.0, adaptive="none needed")
        rows = goal.directions.float()
        batch = start.to(rows.device)[None].requires_grad_()

        def match(images: Tensor) -> Tensor:
            return (1 - (goal.reached(model, images) * rows).sum(1)).clamp_min(0)

        with torch.no_grad():
            units = match(batch[0]).clamp_min(1e-6)

        def losses() -> Tensor:
            angle = (match(batch[0]) / units + 1e-6).sqrt().mean()
            return (angle + self.total_variation * _variation(batch[0]))[None]

        search = Search([batch], self.lr, self.steps, _half_cosine, "signed_adam", [_clamp])
        history = []
        for step in range(self.steps):
            value = float(search.step(losses))
            if step % 10 == 0:
                history.append((step, value))
                if progress:
                    progress(step, self.steps, value)
        search.restore()
        return Reconstruction(
            images=batch[0].detach().cpu(),
            labels=labels,
            objective=float(search.best),
            iterations=self.steps,
            gradient_evaluations=self.steps * evidence.count,
            seconds=time.process_time() - clock,
            adaptive="none needed",
            history=tuple(history),
        )


def _variation(images: Tensor) -> Tensor:
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def _half_cosine(step: int, steps: int) -> float:
    return (1 + math.cos(math.pi * step / steps)) / 2


def _clamp(images: Tensor) -> Tensor:
    return images.clamp(0, 1)
