"""What each image's map must be, and how far trial images are from it.

Where a map is known exactly, its direction alone is a match, without the gradient: it costs one
pass through the layers below it instead of three through all, it does not mix the images of a
batch, and it does not fade as a network is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence import Evidence
from fedaudit.attacks.maps.peel import peel
from fedaudit.attacks.matching import Gradients, Matching
from fedaudit.models.facenet import FaceNet, require_face_net

PEELED_FLOOR = 0.01
"""Error of a peeled map's direction, in units of the error that `peel` reports."""


@dataclass(frozen=True)
class Goal:
    """What each image's map must be.

    Attributes:
        directions: `[N, F]`, unit rows in double precision.
        depth: How many modules of the body make the map; None for what enters the embedding.
        floor: Length of a residual that the error of `directions` explains.
    """

    directions: Tensor
    depth: int | None
    floor: float

    def reached(self, model: FaceNet, images: Tensor) -> Tensor:
        """The unit directions that `images` give, `[n, F]`."""
        if self.depth is None:
            maps = model.features(images)
        else:
            maps = images
            for layer in list(model.body.children())[: self.depth]:
                maps = layer(maps)
        return F.normalize(maps.flatten(1), dim=1)


def goal_of(evidence: Evidence, *, exact: bool = False) -> Goal | None:
    """The earliest map that is known of every image; None where none is, or none says enough.

    A map that averaging has shortened has fewer numbers than an image, and says too little.

    Args:
        evidence: What was gathered.
        exact: Only a map that is known to six digits. The peeled maps of a batch are not: telling
            its positions apart costs two digits, which a search does not mind and a solver does.
    """
    entry = evidence.entry
    if entry is None or entry.maps is None or evidence.coupled:
        return None
    peeled = None if exact and evidence.count > 1 else peel(evidence)
    if peeled is not None:
        rows = F.normalize(peeled.maps.flatten(1).double(), dim=1)
        return Goal(rows, peeled.depth, PEELED_FLOOR * peeled.error)
    if isinstance(evidence.model, FaceNet) and evidence.model.pool == "average":
        return None
    sizes = torch.linalg.svdvals(entry.gradient.double())
    behind = float(sizes[evidence.count] / sizes[evidence.count - 1])
    return Goal(F.normalize(entry.maps.double(), dim=1), None, behind)


class MapMatching:
    """Compares trial images with the maps they must have; moves images as `Matching` does.

    Args:
        matching: The engine, which counts the evaluations.
        goal: The maps.
        images: `[N, C, H, W]`, whose distances are the units of the match.
    """

    separable = True
    free: tuple[Tensor, ...] = ()

    def __init__(self, matching: Matching, goal: Goal, images: Tensor) -> None:
        self.matching, self.goal = matching, goal
        self.model = require_face_net(matching.evidence.model, "a map")
        self.units = torch.ones(len(images)).to(images)
        with torch.no_grad():
            found = [self.gradients(one[None], [i])[1] for i, one in enumerate(images)]
        self.units = torch.stack(found).clamp_min(1e-6)

    @property
    def evaluations(self) -> int:
        """As the engine has counted them."""
        return self.matching.evaluations

    @evaluations.setter
    def evaluations(self, value: int) -> None:
        self.matching.evaluations = value

    def gradients(
        self,
        images: Tensor,
        which: Sequence[int],
        free: Sequence[Tensor] | None = None,
        *,
        functional: bool = False,
        differentiable: bool = True,
    ) -> tuple[Gradients, Tensor]:
        """No gradients, and the mean distance of the maps in the images' units; as `Matching`."""
        del free, functional, differentiable
        self.evaluations += len(which)
        rows = self.goal.directions[list(which)].to(images)
        cosines = (self.goal.reached(self.model, images) * rows).sum(1)
        return (), ((1 - cosines) / self.units[list(which)]).mean()

    def objective(self, trial: Gradients, feature_distance: Tensor) -> Tensor:
        """The root of the distance: an angle, for the reason that `Matching` gives."""
        del trial
        return (feature_distance.clamp_min(0) + 1e-6).sqrt()

    def fresh_free(self, which: Sequence[int]) -> list[Tensor]:
        """Nothing is free."""
        del which
        return []
