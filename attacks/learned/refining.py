"""From a learned start to the image that explains what is known: maps, gradients, or both."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.attacks.learned.known_maps import KnownMaps
from fedaudit.attacks.search.image_priors import total_variation
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.gradient_descent import cosine_ramp
from fedaudit.core.protocols import Progress

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
    """Adam on pixels from a given start; the best by the objective is kept, each image for itself.

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
        channels = 1 if self.evidence.grayscale else self.evidence.shape[0]
        noise = torch.randn(start[:, :channels].shape, generator=generator) * JITTER
        pixels = (start[:, :channels] + noise.to(start)).clamp(0, 1).requires_grad_()
        matching = None
        if self.generic is not None:
            matching = Matching(self.evidence, generator=generator)
            matching.calibrate(self.generic)
        rates = [MAP_LR if matching is None else MATCH_LR]
        free = [] if matching is None else list(matching.free)
        optimizer = torch.optim.Adam(
            [{"params": [pixels], "lr": 1.0}, *({"params": [v], "lr": 1.0} for v in free)]
        )
        rates += [0.1] * len(free)
        best = torch.full((len(start),), float("inf"), device=start.device)
        kept, history = pixels.detach().clone(), []
        for step in range(self.steps + 1):
            images = pixels.expand(-1, self.evidence.shape[0], -1, -1)
            losses = self._objective(images, matching)
            if not bool(torch.isfinite(losses.detach()).all()):
                break
            better = losses.detach() < best
            best = torch.where(better, losses.detach(), best)
            kept = torch.where(better[:, None, None, None], pixels.detach(), kept)
            if step % 10 == 0 or step == self.steps:
                value = float(losses.detach().mean())
                history.append((step, value))
                if progress:
                    progress(step, self.steps, value)
            if step == self.steps:
                break
            penalty = self.total_variation * total_variation(images)
            variables = [pixels, *free]
            grads = torch.autograd.grad(losses.mean() + penalty, variables)
            for group, rate, variable, grad in zip(
                optimizer.param_groups, rates, variables, grads, strict=True
            ):
                group["lr"] = rate * cosine_ramp(step, self.steps)
                variable.grad = grad
            optimizer.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
        images = kept.expand(-1, self.evidence.shape[0], -1, -1).contiguous()
        done = self.steps
        evaluations = (done + 1) * len(start) if matching is None else matching.evaluations
        return Refined(images, float(best.mean()), done, evaluations, tuple(history))

    def _objective(self, images: Tensor, matching: Matching | None) -> Tensor:
        """`[N]`: of each image where each has a known map of its own, else the same for all."""
        loss = images.new_zeros(len(images))
        if matching is not None:
            dummy, distance = matching.gradients(images, range(len(images)))
            loss = loss + matching.objective(dummy, distance)
        elif self.known is not None:
            loss = loss + self.known.distance(images)
        return loss
