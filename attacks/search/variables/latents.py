"""A face generator's latent vectors and inner feature maps as what a search varies."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.generators.projections import project_l1
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.scene import Scene, StageResult
from fedaudit.models.facenet import require_face_net

# Set by hand; what it costs is measured by benchmarks/cost_curves.py.
UNGUIDED = 16
"""Candidates whose gradient is tried where no feature map guides the choice; each costs a pass."""


@dataclass(frozen=True, kw_only=True)
class Latent:
    """The generator's latent vectors, started from the best of some candidates.

    Args:
        candidates: Generated faces that are tried as a start; 1 starts at random.
    """

    candidates: int = 128

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError("candidates must be at least 1")

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """The candidates that fit each image best, by the map it must have or by its gradient."""
        del before
        count, restarts, matching = scene.evidence.count, scene.restarts, scene.matching
        faces = scene.faces
        latent = faces.sample(max(self.candidates, restarts), scene.generator).to(scene.like)
        if self.candidates == 1:
            return [faces.sample(restarts, scene.generator).to(scene.like) for _ in range(count)]
        with torch.no_grad():
            images = torch.cat([faces.images(part) for part in torch.split(latent, 32)])
        matching.calibrate(images[: min(8, len(images))])
        if matching.has_features:
            with torch.no_grad():
                distances = [self._apart(scene, images, i) for i in range(count)]
            return [latent[d.argsort()[:restarts]] for d in distances]
        pool = images[: max(UNGUIDED, count * restarts)]
        scores = []
        for image in pool:
            dummy, distance = matching.gradients(image[None], [0], differentiable=False)
            match = matching.distance_to(dummy) if dummy else distance
            scores.append(match.detach())
        order = torch.stack(scores).argsort()
        ranks = [
            [int(order[(r * count + i) % len(order)]) for r in range(restarts)]
            for i in range(count)
        ]
        return [latent[rows] for rows in ranks]

    def _apart(self, scene: Scene, images: Tensor, place: int) -> Tensor:
        """How far the maps of faces are from the one that image `place` must have, `[n]`."""
        assert isinstance(scene.matching, Matching)  # the one that knows maps
        model, which = require_face_net(scene.evidence.model, "a map"), [place] * len(images)
        nobody = torch.zeros(len(images), dtype=torch.long, device=images.device)
        inputs, _ = scene.evidence.photos(images, nobody, which)
        return scene.matching.feature_distance(model.features(inputs), which)

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """What the generator draws."""
        return scene.faces.images(variable)


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """The feature map that one inner stage of the generator takes (GIFD, Fang et al. 2023).

    Args:
        stage: Number of the inner stage.
        ball: Keep the map within this L1 distance of its start, in units of the start's own L1
            norm; None leaves it free.
    """

    stage: int = 3
    ball: float | None = None

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """The feature map that the previous stage ended with."""
        depth = before.varied.stage if isinstance(before.varied, FeatureMaps) else 0
        return [scene.faces.enter(v.detach(), depth, self.stage) for v in before.variables]

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """What the rest of the generator draws from it."""
        return scene.faces.images_from(variable, self.stage)

    def project(self, start: Tensor, value: Tensor) -> Tensor:
        """Back into the L1 ball around the start."""
        if self.ball is None:
            return value
        return project_l1(value, start, self.ball * start.abs().flatten(1).sum(1))
