"""From a learned start to the image that explains what is known: maps, gradients, or both."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.evidence.feature_maps.known_maps import KnownMaps
from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.attacks.search.image_priors import total_variation
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.gradient_descent import Search
from fedaudit.attacks.search.movers.round_wise import FREE_LR
from fedaudit.core.protocols import Progress

# Set by hand; what they reach is measured by benchmarks/learned_inversion.py.
MATCH_LR, MAP_LR = 0.02, 0.03
"""Peak steps in units of the pixel range: gently, for the start is good already."""
JITTER = 0.002
"""Of the start: a drawing with exactly equal pixels has no direction of least variation."""


@dataclass(frozen=True)
class Refined:
    """Images with the least objective, and what it took."""

    images: Tensor
    objective: float
    steps: int
    evaluations: int
    history: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Refining:
    """Adam on pixels from a given start; the best by the objective is kept.

    Args:
        evidence: What was gathered.
        known: Feature maps, or None.
        steps: Steps of all images together.
        total_variation: Weight of the total variation.
        generic: A few faces `[n, C, H, W]` that have nothing to do with the target: what they give
            is the unit of the match where gradients are matched (a double backward pass a step).
            None matches the known maps alone.
    """

    evidence: Evidence
    known: KnownMaps | None
    steps: int
    total_variation: float
    generic: Tensor | None

    def run(
        self, start: Tensor, generator: torch.Generator, progress: Progress | None = None
    ) -> Refined:
        """Refine `start` `[N, C, H, W]`."""
        evidence, count = self.evidence, len(start)
        channels = 1 if evidence.grayscale else evidence.shape[0]
        noise = torch.randn(start[:, :channels].shape, generator=generator) * JITTER
        pixels = (start[:, :channels] + noise.to(start)).clamp(0, 1)
        free: tuple[Tensor, ...] = ()
        rate, matching = MAP_LR, None
        if self.generic is not None:
            matching = Matching(evidence, generator=generator)
            matching.calibrate(self.generic)
            # The gradient is one objective for all images, known maps are one for each.
            rate, free, pixels = MATCH_LR, matching.free, pixels[None]
        pixels.requires_grad_()
        losses = images = pixels

        def objective() -> Tensor:
            nonlocal losses, images
            images = pixels.view(count, *pixels.shape[-3:]).expand(-1, evidence.shape[0], -1, -1)
            losses = self._objective(images, matching)
            return losses[: len(pixels)]

        def total(_: Tensor) -> Tensor:
            return losses.mean() + self.total_variation * total_variation(images)

        search = Search(
            [pixels, *free],
            [rate, *(FREE_LR for _ in free)],
            self.steps,
            project=[lambda value: value.clamp(0, 1)],
        )
        history = []
        for step in range(self.steps + 1):
            if step < self.steps:
                search.step(objective, total)
            else:
                search.look(objective())
            if not bool(torch.isfinite(losses.detach()).all()):
                break
            if step % 10 == 0 or step == self.steps:
                history.append((step, float(losses.detach().mean())))
                if progress:
                    progress(step, self.steps, history[-1][1])
        search.restore()
        evaluations = (self.steps + 1) * count if matching is None else matching.evaluations
        reached = float(search.best.expand(count).contiguous().mean())
        images = pixels.detach().view(count, *pixels.shape[-3:])
        images = images.expand(-1, evidence.shape[0], -1, -1).contiguous()
        return Refined(images, reached, self.steps, evaluations, tuple(history))

    def _objective(self, images: Tensor, matching: Matching | None) -> Tensor:
        """`[N]`: of each image where each has a known map of its own, else the same for all."""
        loss = images.new_zeros(len(images))
        if matching is not None:
            dummy, distance = matching.gradients(images, range(len(images)))
            loss = loss + matching.objective(dummy, distance)
        elif self.known is not None:
            loss = loss + self.known.distance(images)
        return loss
