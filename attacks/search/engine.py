"""The one attack that all searches are: stages that vary something until the update is explained.

An attack by name is a preset of it (`image_space.py`, `generative.py`); `attempt.py` runs it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.adaptive.defense_adaptation import Attacker
from fedaudit.attacks.adaptive.mixture_arithmetic import Coefficients
from fedaudit.attacks.adaptive.unmasking import Unmasking
from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.attacks.search.attempt import Attempt
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.distances import DISTANCES
from fedaudit.attacks.search.stage import Stage
from fedaudit.core.choices import check_choices
from fedaudit.core.errors import UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.defenses.gradient_transforms import ImageTransform

Precision = Literal["auto", "float64", "float32", "bfloat16"]
LocalSteps = Literal["start", "path", "replay"]
Unknown = Literal["joint", "learned", "guessed"]


@dataclass(frozen=True, kw_only=True)
class MatchingAttack:
    """Search for images whose gradient explains the update, stage after stage.

    Each restart's best images over all stages are kept, and of the restarts the best, both by the
    attack's own match.

    Args:
        stages: In order; a stage starts from what the one before found.
        distance: Between gradients; a name in `objectives.DISTANCES`.
        angle: See `Matching`.
        first_fully_connected: Use what the first fully connected layer gives away in closed form.
        labels: "inferred", or "soft": searched together with the images.
        layers: Match only parameters whose names start so; () matches all.
        restarts: Independent starts, in one pass.
        prior: The face generator, for stages that draw with one.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
        precision: "auto" computes in float64 where the network is smooth and small (it costs
            nothing there, and the match goes on falling below what float32 can tell), else in
            float32, exact also on CUDA. "bfloat16" mixes precisions: faster on a GPU, less exact.
        local_steps: How a client's several steps are met. "start": as one step from the broadcast
            weights. "path": gradients along the straight line to the weights that it shared, at
            the pace of a rehearsal. "replay": the steps themselves. Settings that the threat model
            does not grant are guessed by rehearsing plausible ones.
        batch_norm: Weight of the batch-norm statistics (`attacks.batch_norm`) on networks that
            have them.
        unknown: How a head, or more, that stays on the device is met. "joint": solved for with the
            images, as far as it acts on what was shared: what the inputs of the last layers span
            (`maps.input_span`), or one free vector an image (`Matching`). "learned": trained to
            tell generated people apart. "guessed": random, each restart another. A private part
            with nothing public before it cannot be solved for, and is guessed.
        unmasking: How a network is trained that undoes the masks of mixtures, where a defense puts
            them on; of faces from the same source as `prior`.
    """

    stages: tuple[Stage, ...]
    distance: str = "cosine"
    angle: bool = False
    first_fully_connected: bool = False
    labels: Literal["inferred", "soft"] = "inferred"
    layers: tuple[str, ...] = ()
    restarts: int = 1
    prior: FaceGenerator | None = None
    seconds: float | None = None
    precision: Precision = "auto"
    local_steps: LocalSteps = "start"
    batch_norm: float = 0.0
    unknown: Unknown = "joint"
    unmasking: Unmasking = field(default_factory=Unmasking)

    reads: ClassVar = frozenset({Update})

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.stages:
            raise ValueError("an attack needs at least one stage")
        if not sum(stage.steps for stage in self.stages):
            raise ValueError("an attack needs at least one step")
        if self.restarts < 1:
            raise ValueError("restarts must be at least 1")
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError("seconds must be > 0")
        if self.distance not in DISTANCES:
            raise UnknownNameError("distance", self.distance, DISTANCES)

    @property
    def category(self) -> AttackCategory:
        """By whether the images are drawn by a face generator."""
        if self.prior is None:
            return AttackCategory.GRADIENT_MATCHING
        return AttackCategory.GENERATIVE

    @property
    def needs(self) -> frozenset[Knowledge]:
        """Faces from elsewhere only with a generator, or to learn a private part from."""
        basic = frozenset({Knowledge.MODEL, Knowledge.BASIC})
        faces = self.prior is not None or self.unknown == "learned"
        return basic | {Knowledge.AUXILIARY} if faces else basic

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Reconstruction:
        """Reconstruct the batch behind one update."""
        started = time.process_time()
        run = Attempt(self, seen, generator, progress, checkpoint)
        run.search()
        best = int(run.best.argmin())
        evidence, matching = run.scene.evidence, run.scene.matching
        labels = evidence.labels
        if matching.loss == "soft" and not run.surrogate_head:
            labels = torch.stack([rows[best] for rows in matching.free]).argmax(1)
        labels = torch.full((evidence.count,), -1) if labels is None else labels.cpu()
        images, evaluations = run.images[best], [matching.evaluations]
        attacker = self._attacker(run, seen, generator, evaluations)
        images, labels, handled = evidence.reveal(images, labels, attacker)
        word = how_adaptive(seen, matched=matching.follows, handled=handled)
        if run.surrogate_head and self.unknown != "learned":
            word = "no"  # a guess is no account of what the device keeps
        return Reconstruction(
            images=images.cpu().float(),
            labels=labels,
            objective=float(run.best[best]),
            iterations=run.trace.step,
            gradient_evaluations=sum(evaluations),
            seconds=time.process_time() - started + run.earlier_seconds,
            adaptive=word,
            history=tuple(run.trace.history),
        )

    def _attacker(
        self, run: Attempt, seen: Observation, generator: torch.Generator, evaluations: list[int]
    ) -> Attacker:
        """What this attack can do for special defenses; further searches add to `evaluations`."""
        evidence = run.scene.evidence

        def earlier_rounds() -> Iterator[tuple[Tensor, Tensor]]:
            for update in evidence.adaptation.rounds[1:]:
                if run.trace.time_is_up:
                    return
                alone = replace(seen, shared=(update,), earlier=())
                past = Attempt(self, alone, generator, None, None)
                soft = past.scene.evidence.soft
                if soft is not None:
                    past.search()
                    evaluations.append(past.scene.matching.evaluations)
                    yield past.images[int(past.best.argmin())][0], soft[0]

        def unmasked(
            transforms: Sequence[ImageTransform], masked: Tensor, shares: Coefficients
        ) -> tuple[Tensor, Tensor]:
            assert self.prior is not None  # who has no faces does not come here
            own = replace(self.unmasking.auxiliary, source=self.prior.source)
            unmasking = replace(self.unmasking, auxiliary=own)
            return unmasking.unmasked(transforms, masked, shares, run.progress)

        return Attacker(
            matched=run.scene.matching.follows,
            single_step=run.scene.matching.dummy is None,
            source=self.prior.source if self.prior else None,
            earlier_rounds=earlier_rounds,
            mean_face=run.mean_face,
            unmasked=unmasked,
        )
