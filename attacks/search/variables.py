"""What a stage of a search varies: pixels, a latent vector, inner feature maps, network weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.attacks.generators.face_generator import FaceGenerator, FittedGenerator
from fedaudit.attacks.generators.projections import project_l1
from fedaudit.attacks.generators.untrained import UntrainedPrior
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.span_mending import mend
from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.core.choices import check_choices
from fedaudit.models.facenet import require_face_net

# Set by hand; what it costs is measured by benchmarks/cost_curves.py.
UNGUIDED = 16
"""Candidates whose gradient is tried where no feature map guides the choice; each costs a pass."""


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


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Every pixel is free; one channel where the update proves the images gray.

    Args:
        start: "gray" (0.5 with a little uniform noise), "uniform" noise in [0, 1], "normal" noise
            around 0.5 (DLG's), the "previous" stage's images, or those "mended": drawn anew where
            what layers' inputs span shows that they are wrong (`span_mending`). "anew" is as
            "normal", and "last" what the stage before ended with, were it not the best so far.
        spread: Half the width of the noise around gray.
        clamp: Keep them in [0, 1] after each step.
        coarse: What varies is a grid of so many times fewer points along each side, from which the
            pixels are interpolated: noise finer than that cannot explain an update.
    """

    start: Literal["anew", "gray", "last", "mended", "normal", "previous", "uniform"] = "gray"
    spread: float = 0.1
    clamp: bool = True
    coarse: int = 1

    def __post_init__(self) -> None:
        check_choices(self)

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """Noise, or the images so far."""
        evidence, like = scene.evidence, scene.like
        if self.start in ("last", "mended", "previous"):
            images = before.images
            if self.start == "last":
                images = images_of(scene, before)
            if self.start == "mended":
                spans = scene.leading
                assert spans is not None
                images = torch.stack([mend(spans, one, scene.generator) for one in images])
            channels = evidence.free_shape[0]
            return [self._grid_of(images[:, i, :channels]) for i in range(evidence.count)]
        channels, height, width = evidence.shape
        grid = -(-height // self.coarse), -(-width // self.coarse)
        size = (scene.restarts, evidence.count, channels, *grid)
        if self.start in ("anew", "normal"):
            noise = 0.5 + 0.25 * torch.randn(size, generator=scene.generator)
        else:
            noise = torch.rand(size, generator=scene.generator)
            if self.start == "gray":
                noise = 0.5 + self.spread * (2 * noise - 1)
        if evidence.grayscale:
            noise = noise.mean(2, keepdim=True)
        return list(noise.to(like).unbind(1))

    def _grid_of(self, images: Tensor) -> Tensor:
        if self.coarse == 1:
            return images.clone()
        height, width = images.shape[2:]
        grid = -(-height // self.coarse), -(-width // self.coarse)
        return F.interpolate(images, grid, mode="area")

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """The pixels themselves, or what their grid draws."""
        if self.coarse > 1:
            variable = F.interpolate(variable, tuple(scene.evidence.shape[1:]), mode="bicubic")
        return variable.expand(-1, scene.evidence.shape[0], -1, -1)

    def project(self, _: Tensor, value: Tensor) -> Tensor:
        """Into the range of images."""
        return value.clamp(0, 1) if self.clamp else value


MENDED = Pixels(start="mended")
ANEW = Pixels(start="anew", coarse=2)
OTHER_NOISE = Pixels(start="anew")
FINER = Pixels(start="last")
"""What varies where a search is stuck: images mended; or drawn anew, then on their own grid."""


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


@dataclass(frozen=True, kw_only=True)
class GeneratorWeights:
    """The generator's own weights, each image's apart (GIAS, Jeon et al., NeurIPS 2021).

    A variable is one vector: the latent that the stage before found, then all weights.
    """

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """The weights as they are, behind each image's latent."""
        weights = scene.faces.parameters(1)
        flat = torch.cat([value.detach()[0].flatten() for value in weights.values()])
        return [
            torch.cat([latent.detach().flatten(1), flat.to(latent).expand(len(latent), -1)], dim=1)
            for latent in before.variables
        ]

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """What the generator draws with these weights from these latents."""
        shape = torch.Size(scene.faces.network.latents.shape)
        like = {name: value[0] for name, value in scene.faces.parameters(1).items()}
        weights = [unflatten(row[shape.numel() :], like) for row in variable]
        latent = torch.stack([row[: shape.numel()].view(shape) for row in variable])
        stack = {name: torch.stack([one[name] for one in weights]) for name in like}
        return scene.faces.images_with(stack, latent)


@dataclass(frozen=True, kw_only=True)
class UntrainedWeights:
    """The weights of an untrained U-Net that draws from fixed noise, each image's apart.

    GION (Jeon et al. 2021, section 4.3; Ulyanov et al., CVPR 2018): no faces from elsewhere.

    Args:
        width: Channels of the finest scale.
    """

    width: int = 32

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """Random weights, another set for each image and restart."""
        del before
        starts = []
        for _ in range(scene.evidence.count):
            rows = [
                scene.untrained(self.width, scene.generator).parameters()
                for _ in range(scene.restarts)
            ]
            flat = [torch.cat([v.detach().flatten() for v in row.values()]) for row in rows]
            starts.append(torch.stack(flat).to(scene.like))
        return starts

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """What the network draws with these weights: in its own precision, not in the match's."""
        network = scene.fixed_untrained(self.width)
        like = network.parameters()
        own = variable.to(next(iter(like.values())))
        images = [network.images(unflatten(row, like)).to(variable) for row in own]
        return torch.cat(images).expand(-1, scene.evidence.shape[0], -1, -1)


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A vector cut into tensors of the names and shapes of `like`."""
    parts = torch.split(vector, [tensor.numel() for tensor in like.values()])
    return {
        name: part.view(tensor.shape)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }
