"""The one attack that all searches are: stages that vary something until the update is explained.

An attack by name is a preset of it: see `image_space.py` and `generative.py`.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive import how_adaptive
from fedaudit.attacks.batch_norm import BatchNormPrior, from_observation
from fedaudit.attacks.evidence import gather
from fedaudit.attacks.evolution import Evolution
from fedaudit.attacks.gauss_newton import GaussNewton
from fedaudit.attacks.image_priors import GroupConsistency, ImagePrior, total_variation
from fedaudit.attacks.matching import Matching
from fedaudit.attacks.objectives import DISTANCES
from fedaudit.attacks.priors.generator import FaceGenerator
from fedaudit.attacks.rounds import Decode, Movement, OneByOne, Plan
from fedaudit.attacks.search import SCHEDULES, Optimizer, Progress, Schedule
from fedaudit.attacks.several_steps import replay_of
from fedaudit.attacks.varies import Found, Pixels, Scene, Varies
from fedaudit.attacks.watch import Checkpoint, Watch
from fedaudit.errors import UnknownNameError
from fedaudit.types import Knowledge, Observation, Reconstruction, Shared, Update

SMALL = 500_000
"""Parameters below which double precision costs nothing: the operations' overhead does."""
Precision = Literal["auto", "float64", "float32", "bfloat16"]
LocalSteps = Literal["start", "path", "replay"]
Move = Movement | OneByOne | Evolution | GaussNewton


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a search: what varies, and how it moves.

    Args:
        varies: Pixels, a latent vector, inner feature maps, weights (`attacks.varies`).
        steps: Steps an image.
        lr: Peak learning rate.
        optimizer: "adam", "signed_adam", "lbfgs"; "cma_es", whose `steps` are generations and whose
            `lr` is the first standard deviation; or "gauss_newton", which solves for pixels where
            feature maps are known, and whose `lr` is the first damping.
        schedule: Of the learning rate; a name in `search.SCHEDULES`.
        rounds: Sweeps that move one image at a time (Liu et al. 2021); 0 moves all at once.
        total_variation: Weight of the total variation of the images.
        square_norm: Weight of the mean square of the variable (keeps latents where the generator
            was trained).
        priors: Further scores of images.
        group: Agreement between restarts.
        patience: Stop when this many steps brought nothing; 0 never.
        keep: How many restarts go on to the next stage, best first; None keeps all.
        population: Candidates a generation of CMA-ES; None for its own rule.
        smooth_only: Leave the stage out on networks with kinks (ReLU, max-pooling).
    """

    varies: Varies
    steps: int
    lr: float
    optimizer: Optimizer | Literal["cma_es", "gauss_newton"] = "adam"
    schedule: Schedule = "cosine"
    rounds: int = 0
    total_variation: float = 0.0
    square_norm: float = 0.0
    priors: tuple[ImagePrior, ...] = ()
    group: GroupConsistency | None = None
    patience: int = 0
    keep: int | None = None
    population: int | None = None
    smooth_only: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or self.rounds < 0 or self.patience < 0:
            raise ValueError("steps, rounds and patience must be at least 0")
        if self.lr <= 0:
            raise ValueError("lr must be > 0")
        if self.total_variation < 0 or self.square_norm < 0:
            raise ValueError("the weights of priors must be ≥ 0")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}")
        if self.optimizer == "gauss_newton" and not isinstance(self.varies, Pixels):
            raise ValueError("gauss_newton solves for pixels: varies must be Pixels(…)")

    def penalty(self, variable: Tensor, images: Tensor) -> Tensor:
        """What is added to the match."""
        found = images.new_zeros(())
        if self.total_variation:
            found = found + self.total_variation * total_variation(images)
        if self.square_norm:
            found = found + self.square_norm * variable.square().mean()
        for prior in self.priors:
            found = found + prior(images)
        return found


@dataclass(frozen=True, kw_only=True)
class MatchingAttack:
    """Search for images whose gradient explains the update, stage after stage.

    Each restart's best images over all stages are kept, and of the restarts the best, both by the
    attack's own match.

    Args:
        stages: In order; a stage starts from what the one before found.
        distance: Between gradients; a name in `objectives.DISTANCES`.
        angle: See `Matching`.
        entry: Use what the first fully connected layer gives away in closed form.
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
    """

    stages: tuple[Stage, ...]
    distance: str = "cosine"
    angle: bool = False
    entry: bool = False
    labels: Literal["inferred", "soft"] = "inferred"
    layers: tuple[str, ...] = ()
    restarts: int = 1
    prior: FaceGenerator | None = None
    seconds: float | None = None
    precision: Precision = "auto"
    local_steps: LocalSteps = "start"
    batch_norm: float = 0.0

    reads: ClassVar[frozenset[type[Shared]]] = frozenset({Update})

    def __post_init__(self) -> None:
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
    def needs(self) -> frozenset[Knowledge]:
        """Faces from elsewhere only with a generator."""
        basic = frozenset({Knowledge.MODEL, Knowledge.BASIC})
        return basic | {Knowledge.AUXILIARY} if self.prior else basic

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
        run = _Run(self, seen, generator, progress, checkpoint)
        run.search()
        best = int(run.best.argmin())
        evidence, matching = run.scene.evidence, run.scene.matching
        labels = evidence.labels
        if matching.loss == "soft":
            labels = torch.stack([rows[best] for rows in matching.free]).argmax(1)
        return Reconstruction(
            images=run.images[best].cpu().float(),
            labels=torch.full((evidence.count,), -1) if labels is None else labels.cpu(),
            objective=float(run.best[best]),
            iterations=run.watch.step,
            gradient_evaluations=matching.evaluations,
            seconds=time.process_time() - started + run.earlier_seconds,
            adaptive=how_adaptive(seen),
            history=tuple(run.watch.history),
        )


@dataclass
class _Run:
    """One call of an attack, from its start or from a checkpoint."""

    attack: MatchingAttack
    seen: Observation
    generator: torch.Generator
    progress: Progress | None
    checkpoint: Checkpoint | None
    earlier_seconds: float = 0.0
    _last_saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        attack, started = self.attack, time.process_time()
        evidence = gather(self.seen)
        trial = replay_of(self.seen, evidence, attack.local_steps, self.generator)
        wide = attack.precision == "float64" or (
            attack.precision == "auto"
            and trial is None
            and attack.prior is None
            and evidence.smooth
            and _size(evidence.model) < SMALL
        )
        if wide:
            evidence = evidence.to(torch.float64)
        matching = Matching(
            evidence,
            use_entry=attack.entry,
            distance=attack.distance,
            angle=attack.angle,
            labels=attack.labels,
            layers=attack.layers,
            restarts=attack.restarts,
            autocast=torch.bfloat16 if attack.precision == "bfloat16" else None,
            trial=trial,
            generator=self.generator,
        )
        self.scene = Scene(evidence, matching, self.generator, attack.prior, attack.restarts)
        sweeps = [
            stage.steps
            * (evidence.count if stage.rounds and matching.separable else 1)
            * (attack.restarts if stage.optimizer == "lbfgs" or trial else 1)
            for stage in attack.stages
            if evidence.smooth or not stage.smooth_only
        ]
        self.watch = Watch(sum(sweeps), self.progress, attack.seconds)
        self.best = torch.full((attack.restarts,), float("inf"))
        self.images = torch.empty(0)
        self._started = started

    def search(self) -> None:
        """All stages, in order."""
        found = Found(self.images)
        first, saved = self._resume()
        for number, stage in enumerate(self.attack.stages):
            if number < first or (stage.smooth_only and not self.scene.evidence.smooth):
                continue
            if number and self.watch.expired:
                break
            variables = None
            if saved:
                variables = [saved[f"variable/{i}"] for i in range(self.scene.evidence.count)]
                self.scene.restarts = len(variables[0])
                self.scene.matching.keep(range(self.scene.restarts))
            found = self._stage(number, stage, found, variables, saved)
            saved = {}
            if stage.keep and stage.keep < self.scene.restarts:
                found = self._cull(found, stage.keep)
        if self.checkpoint:
            self.checkpoint.clear()

    def _stage(
        self,
        number: int,
        stage: Stage,
        before: Found,
        variables: list[Tensor] | None,
        saved: dict[str, Tensor],
    ) -> Found:
        scene = self.scene
        if variables is None:
            variables = stage.varies.begin(scene, before)
        # A start that is not written to: projections measure distances from it.
        starts = [v.detach().clone() for v in variables]
        leaves = [v.detach().clone().requires_grad_() for v in variables]

        def decode(variable: Tensor) -> Tensor:
            return stage.varies.decode(scene, variable)

        project = getattr(stage.varies, "project", None)
        plan = Plan(
            steps=stage.steps,
            lr=stage.lr,
            rounds=stage.rounds,
            optimizer=cast(Optimizer, stage.optimizer),  # of other names, Plan reads the rest
            schedule=stage.schedule,
            project=project and (lambda i, value: project(starts[i], value)),
            patience=stage.patience,
            group=stage.group,
        )
        statistics = self._statistics()

        def penalty(variable: Tensor, images: Tensor) -> Tensor:
            found = stage.penalty(variable, images)
            return found + self.attack.batch_norm * statistics(images) if statistics else found

        movement: Move
        if stage.optimizer == "gauss_newton":
            movement = GaussNewton(scene.matching, leaves, decode, plan, self.watch)
        elif stage.optimizer == "cma_es":
            seed = self.generator.initial_seed() + number
            movement = Evolution(
                scene.matching,
                leaves,
                decode,
                plan,
                penalty,
                self.watch,
                seed,
                stage.population,
            )
        else:
            movement = Movement(scene.matching, leaves, decode, plan, penalty, self.watch)
            # Neither L-BFGS nor a replay can be mapped over restarts.
            if scene.restarts > 1 and (stage.optimizer == "lbfgs" or scene.matching.trial):
                movement = OneByOne(movement)
        if saved:
            movement.load({k.removeprefix("move/"): v for k, v in saved.items() if "move/" in k})
        movement.run(lambda: self._save(number, starts, movement))
        self._offer(leaves, decode)
        return Found(self.images, leaves, stage.varies)

    def _statistics(self) -> BatchNormPrior | None:
        """The batch-norm prior, where it is asked for and the observation gives it a source."""
        model = self.scene.evidence.model
        if not self.attack.batch_norm:
            return None
        source = from_observation(self.seen, model)
        return BatchNormPrior(model, source) if source else None

    def _offer(self, variables: Sequence[Tensor], decode: Decode) -> None:
        """Keep, for each restart, the images with the least match of all stages."""
        matching = self.scene.matching
        every = range(len(variables))
        images, matches = [], []
        with torch.no_grad():
            for r in range(len(variables[0])):
                drawn = decode(torch.stack([v[r] for v in variables])).clamp(0, 1)
                images.append(drawn)
        for r, drawn in enumerate(images):
            rows = [rows[r].detach() for rows in matching.free]
            trial, distance = matching.gradients(drawn, every, rows, differentiable=False)
            matches.append(matching.objective(trial, distance).detach())
        now, drawn = torch.stack(matches).cpu(), torch.stack(images)
        if not len(self.images):
            self.images, self.best = drawn, now
            return
        better = now < self.best
        self.best = torch.where(better, now, self.best)
        self.images = torch.where(better.to(drawn.device).view(-1, 1, 1, 1, 1), drawn, self.images)

    def _cull(self, found: Found, keep: int) -> Found:
        """Only the best restarts go on."""
        order = self.best.argsort()[:keep]
        rows = order.tolist()
        self.best, self.images = self.best[rows], self.images[rows]
        self.scene.restarts = keep
        self.scene.matching.keep(rows)
        return Found(self.images, [v.detach()[rows] for v in found.variables], found.varied)

    # --- resuming -------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        """Of the attack, the observation and the seed: a checkpoint of another one is no use."""
        digest = hashlib.sha256(repr(self.attack).encode())
        digest.update(str(self.generator.initial_seed()).encode())
        for name, value in sorted(self.scene.evidence.target.items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _save(self, number: int, starts: Sequence[Tensor], movement: Move) -> None:
        if self.checkpoint is None:
            return
        if time.monotonic() - self._last_saved < self.checkpoint.every:
            return
        self._last_saved = time.monotonic()
        matching = self.scene.matching
        state = {f"move/{name}": value for name, value in movement.state().items()}
        state |= {f"variable/{i}": value for i, value in enumerate(starts)}
        state |= {"best": self.best, "images": self.images, "random": self.generator.get_state()}
        facts = {
            "stage": number,
            "step": self.watch.step,
            "history": self.watch.history,
            "evaluations": matching.evaluations,
            "scales": matching.scales,
            "seconds": time.process_time() - self._started + self.earlier_seconds,
        }
        self.checkpoint.save(self._fingerprint(), facts, state)

    def _resume(self) -> tuple[int, dict[str, Tensor]]:
        """The stage to go on with, and what was saved in it."""
        kept = self.checkpoint.load(self._fingerprint()) if self.checkpoint else None
        if kept is None:
            return 0, {}
        facts, state = kept
        matching = self.scene.matching
        like = self.scene.like
        self.best, self.images = state["best"].cpu(), state["images"].to(like)
        self.generator.set_state(state["random"].cpu())
        self.watch.step = facts["step"]
        self.watch.history = [(step, value) for step, value in facts["history"]]
        matching.evaluations, matching.scales = facts["evaluations"], tuple(facts["scales"])
        self.earlier_seconds = facts["seconds"]
        return facts["stage"], {k: v.to(like.device) for k, v in state.items()}


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
