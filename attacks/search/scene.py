"""What the stages of a search share, and what one leaves to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.generators.face_generator import FaceGenerator, FittedGenerator
from fedaudit.attacks.generators.untrained import UntrainedPrior
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.training.simulated_training import smooth_noise


@dataclass
class Scene:
    """What all stages of one attack share: evidence, engine, all randomness.

    Attributes:
        prior: Where generated faces come from; None for attacks without one.
        restarts: Independent starts R.
        spans: What layers' inputs span, where the search begins by that; else None.
    """

    evidence: Evidence
    matching: Matching | SpanMatching
    generator: torch.Generator
    prior: FaceGenerator | None = None
    restarts: int = 1
    spans: SpanMatching | None = None

    def keep(self, restarts: Sequence[int]) -> None:
        """Drop the state of all restarts but these."""
        self.restarts = len(restarts)
        self.matching.keep(restarts)
        if self.spans is not None:
            self.spans.keep(restarts)

    @property
    def leading(self) -> SpanMatching | None:
        """What layers' inputs span, where anything is searched by that."""
        if self.spans is None and isinstance(self.matching, SpanMatching):
            return self.matching
        return self.spans

    @property
    def evaluations(self) -> int:
        """Number of images that were compared so far."""
        return self.matching.evaluations + (self.spans.evaluations if self.spans else 0)

    @cached_property
    def faces(self) -> FittedGenerator:
        """The generator, fitted to the attacked images."""
        assert self.prior is not None
        return fit_generator(self.prior, self.evidence)

    def untrained(self, width: int, generator: torch.Generator) -> UntrainedPrior:
        """An untrained network that draws one image, from weights that `generator` gives."""
        return UntrainedPrior(self.evidence.free_shape, generator, width=width)

    @cached_property
    def _shared_networks(self) -> dict[int, UntrainedPrior]:
        return {}

    def fixed_untrained(self, width: int) -> UntrainedPrior:
        """The untrained network whose noise all images share; the same after a resumption."""
        if width not in self._shared_networks:
            self._shared_networks[width] = self.untrained(
                width, torch.Generator().manual_seed(self.seed)
            )
        return self._shared_networks[width]

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the type that the search runs with."""
        return self.evidence.like

    @property
    def seed(self) -> int:
        """A seed for what must be drawn alike when a search is resumed."""
        return self.generator.initial_seed()

    def generic_faces(self, count: int) -> Tensor:
        """See `generic_faces`."""
        return generic_faces(self.prior, self.evidence, self.seed, count)


@dataclass
class StageResult:
    """Where the stage before ended.

    Attributes:
        images: `[R, N, C, H, W]`, the best so far of each restart.
        variables: One `[R, …]` an image, of the kind `varied`; () before the first stage.
    """

    images: Tensor
    variables: Sequence[Tensor] = ()
    varied: "Varies | None" = None


class Varies(Protocol):
    """One kind of variable."""

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """Start values: one `[R, …]` an image."""
        ...

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """Variables `[n, …]` → images `[n, C, H, W]`."""
        ...


def images_of(scene: Scene, before: StageResult) -> Tensor:
    """What the stage before ended with, `[R, N, C, H, W]`, were it not the best so far."""
    if before.varied is None:
        return before.images
    ends = [before.varied.decode(scene, v.detach()) for v in before.variables]
    return torch.stack(ends, 1)


def fit_generator(prior: FaceGenerator, evidence: Evidence) -> FittedGenerator:
    """The generator, fitted to the attacked images and on their device."""
    faces = prior.load(evidence.shape, grayscale=evidence.grayscale)
    if isinstance(faces.network, nn.Module):
        faces.network.to(evidence.like.device)
    return faces


def generic_faces(prior: FaceGenerator | None, evidence: Evidence, seed: int, count: int) -> Tensor:
    """Generated faces where the attack has a generator, else smooth noise; `[count, C, H, W]`."""
    like, generator = evidence.like, torch.Generator().manual_seed(seed)
    if prior is None:
        return smooth_noise(count, evidence.shape, generator).to(like)
    return fit_generator(prior, evidence).draw(count, generator, like.device).to(like)
