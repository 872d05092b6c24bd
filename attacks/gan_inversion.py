"""Inverting gradients with a GAN prior, one image at a time (Liu et al. 2021), then deeper."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.adaptive import how_adaptive
from fedaudit.attacks.evidence import Evidence, gather
from fedaudit.attacks.matching import Matching
from fedaudit.attacks.objectives import cosine_distance, total_variation
from fedaudit.attacks.priors.generator import DEFAULT_CROP, FaceGenerator, FittedGenerator
from fedaudit.attacks.rounds import Plan, optimize
from fedaudit.attacks.search import Progress
from fedaudit.models.facenet import require_face_net
from fedaudit.types import Knowledge, Observation, Reconstruction, Update

LATENT_PRIOR = 1e-3
"""Weight of |z|²/dim, which keeps latent vectors where the generator was trained."""
UNGUIDED = 16
"""Candidates whose gradient is tried where no feature map guides the choice; each costs a pass."""


@dataclass(frozen=True, kw_only=True)
class GanInversion:
    """Search a face generator for the faces that explain the update, then leave its range.

    Liu et al. (ICFTIC 2021): generated images in place of free ones; in each round one image of the
    batch moves and the others are held, so that a round costs one image's step. Then, as in GIFD
    (Fang et al., ICCV 2023), the generator's inner feature maps become the variables, and at last
    the pixels. Beside the gradient's direction the match uses what the first fully connected layer
    gives away in closed form (`attacks.entry_layer`). The stage with the least objective is kept.

    Args:
        candidates: Generated faces that are tried as a start.
        latent_steps: Steps an image in the generator's latent space.
        stages: Inner feature maps to search after the latent, in order; () stays in its range.
        stage_steps: Steps an image in each of them.
        pixel_steps: Steps an image in pixels at the end; 0 leaves the faces to the generator.
        pixel_lr: Peak step size in pixels, in units of the range [0, 1].
        rounds: Sweeps over the batch in each stage; 0 moves all images at once.
        total_variation: Weight of the total variation in the last stage.
        entry: Use what the first fully connected layer gives away.
        prior: Where the generator comes from: "face_gan", a TorchScript or torch.export file, or
            `package.module:factory`.
        crop: Part of the generator's image that is kept, as (top, bottom, left, right) in [0, 1].
    """

    candidates: int = 128
    latent_steps: int = 20
    stages: tuple[int, ...] = (3,)
    stage_steps: int = 40
    pixel_steps: int = 150
    pixel_lr: float = 0.05
    rounds: int = 5
    total_variation: float = 0.3
    entry: bool = True
    prior: str = "face_gan"
    crop: tuple[float, float, float, float] = DEFAULT_CROP

    needs: ClassVar[frozenset[Knowledge]] = frozenset(
        {Knowledge.MODEL, Knowledge.BASIC, Knowledge.AUXILIARY}
    )
    reads: ClassVar[frozenset[type]] = frozenset({Update})

    def __post_init__(self) -> None:
        # A study file gives lists and plain strings.
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "crop", tuple(self.crop))
        FaceGenerator(source=self.prior, crop=self.crop)  # refuses a bad crop
        counts = (self.latent_steps, self.stage_steps, self.pixel_steps, self.rounds)
        if self.candidates < 1 or min(counts) < 0:
            raise ValueError("candidates must be at least 1, steps and rounds at least 0")
        if self.total_variation < 0:
            raise ValueError("total_variation must be ≥ 0")

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
        matching = Matching(evidence, use_entry=self.entry, generator=generator)
        prior = FaceGenerator(source=self.prior, crop=self.crop)
        faces = prior.load(evidence.shape, grayscale=evidence.grayscale)
        trace = _Trace(self._total_steps(faces, evidence.count, matching.separable), progress)

        starts = self._starts(matching, faces, generator)
        best = _Best(matching)
        variables, stage = _leaves(starts), 0
        self._move(
            matching,
            variables,
            faces,
            0,
            Plan(steps=self.latent_steps, lr=0.1, rounds=self.rounds),
            trace,
        )
        best.offer(_images(variables, partial(faces.images_from, stage=0)))
        for deeper in faces.stages(self.stages):
            variables = _leaves([faces.enter(v.detach(), stage, deeper) for v in variables])
            stage = deeper
            plan = Plan(steps=self.stage_steps, lr=0.05, rounds=self.rounds)
            self._move(matching, variables, faces, stage, plan, trace)
            best.offer(_images(variables, partial(faces.images_from, stage=stage)))
        if self.pixel_steps:
            best.offer(self._pixels(matching, best.images, evidence, trace))
        return Reconstruction(
            images=best.images,
            labels=torch.full((evidence.count,), -1)
            if evidence.labels is None
            else evidence.labels,
            objective=best.objective,
            iterations=trace.step,
            gradient_evaluations=matching.evaluations,
            seconds=time.process_time() - started,
            adaptive=how_adaptive(seen),
            history=tuple(trace.history),
        )

    def _starts(
        self, matching: Matching, faces: FittedGenerator, generator: torch.Generator
    ) -> list[Tensor]:
        """The candidate that fits each image best, by the map it must have or by its gradient."""
        count = matching.evidence.count
        latent = faces.sample(self.candidates, generator)
        with torch.no_grad():
            images = torch.cat([faces.images(part) for part in torch.split(latent, 32)])
        matching.calibrate(images[: min(8, len(images))])
        if matching.has_features:
            with torch.no_grad():
                maps = require_face_net(matching.evidence.model, "a map").features(images)
                distances = [matching.feature_distance(maps, [i] * len(maps)) for i in range(count)]
            return [latent[int(d.argmin())][None] for d in distances]
        tried = images[: max(UNGUIDED, count)]
        scores = []
        for image in tried:
            trial, _ = matching.gradients(image[None], [0])
            scores.append(float(cosine_distance([t.detach() for t in trial], matching.target)))
        order = torch.tensor(scores).argsort()
        return [latent[int(order[i % len(order)])][None] for i in range(count)]

    def _move(
        self,
        matching: Matching,
        variables: Sequence[Tensor],
        faces: FittedGenerator,
        stage: int,
        plan: Plan,
        trace: "_Trace",
    ) -> None:
        def prior(variable: Tensor, images: Tensor) -> Tensor:
            del images
            return LATENT_PRIOR * variable.square().mean() if stage == 0 else variable.new_zeros(())

        optimize(matching, variables, lambda v: faces.images_from(v, stage), plan, prior, trace.add)

    def _pixels(
        self, matching: Matching, images: Tensor, evidence: Evidence, trace: "_Trace"
    ) -> Tensor:
        channels = 1 if evidence.grayscale else evidence.shape[0]
        variables = _leaves([image[None, :channels] for image in images])

        def decode(pixels: Tensor) -> Tensor:
            return pixels.expand(-1, evidence.shape[0], -1, -1)

        def prior(pixels: Tensor, images: Tensor) -> Tensor:
            del images
            return self.total_variation * total_variation(pixels)

        plan = Plan(
            steps=self.pixel_steps,
            lr=self.pixel_lr,
            rounds=self.rounds,
            signed=True,
            box=(0.0, 1.0),
        )
        optimize(matching, variables, decode, plan, prior, trace.add)
        return _images(variables, decode)

    def _total_steps(self, faces: FittedGenerator, count: int, separable: bool) -> int:
        inner = self.stage_steps * len(faces.stages(self.stages))
        each = self.latent_steps + inner + self.pixel_steps
        return each * (count if self.rounds and separable else 1)


class _Trace:
    """Counts steps, keeps a thinned history, tells the caller."""

    def __init__(self, steps: int, progress: Progress | None) -> None:
        self.steps, self.progress = steps, progress
        self.step = 0
        self.history: list[tuple[int, float]] = []

    def add(self, value: float) -> None:
        self.step += 1
        if self.step % 10 == 0:
            self.history.append((self.step, value))
            if self.progress:
                self.progress(self.step, self.steps, value)


class _Best:
    """The images with the least match, of all stages; the attack's own objective decides."""

    def __init__(self, matching: Matching) -> None:
        self.matching = matching
        self.objective = float("inf")
        self.images = torch.empty(0)

    def offer(self, images: Tensor) -> None:
        trial, distance = self.matching.gradients(images, range(len(images)))
        value = float(self.matching.objective(trial, distance).detach())
        if value < self.objective:
            self.objective, self.images = value, images


def _leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def _images(variables: Sequence[Tensor], decode: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.no_grad():
        return decode(torch.cat(list(variables))).clamp(0, 1)
