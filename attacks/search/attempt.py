"""Carries an attack out, stage after stage: from its start, or from a checkpoint."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.assumptions import distance_for
from fedaudit.attacks.evidence.unshared_layers import guess_local_layers, learn_local_layers
from fedaudit.attacks.gathering.gather import Evidence, gather
from fedaudit.attacks.search.batch_norm_prior import BatchNormPrior, from_observation
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.map_matching import MapMatching, goal_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.mover import Decode, Mover
from fedaudit.attacks.search.several_steps import replay_of
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.staging import from_gray, of_noise, within_range
from fedaudit.attacks.search.trace import Trace
from fedaudit.attacks.search.variables import Found, Scene, fitted
from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import Progress

if TYPE_CHECKING:
    from fedaudit.attacks.search.engine import MatchingAttack

PROXY_FACES = 32
"""Generated faces whose batch-norm statistics stand in for unknown ones."""
MEAN_OF = 64
"""Generated faces whose mean is the mean face."""
GENERIC = 12
"""Images with which draws are tried."""
SMALL = 500_000
"""Parameters below which double precision costs nothing: the operations' overhead does."""


@dataclass
class Attempt:
    """One call of an attack, from its start or from a checkpoint.

    Args:
        attack: Stages and settings.
        seen: What the server saw.
        generator: All randomness.
        progress: Called with (step, steps, objective).
        checkpoint: Where to keep how far it is; None keeps nothing.
    """

    attack: "MatchingAttack"
    seen: Observation
    generator: torch.Generator
    progress: Progress | None
    checkpoint: Checkpoint | None
    earlier_seconds: float = 0.0
    _last_saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        attack, started = self.attack, time.process_time()
        evidence = gather(self.seen)
        dummy = replay_of(self.seen, evidence, attack.local_steps, self.generator)
        wide = attack.precision == "float64" or (
            attack.precision == "auto"
            and dummy is None
            and attack.prior is None
            and evidence.smooth
            and _size(evidence.model) < SMALL
        )
        if wide:
            evidence = evidence.to(torch.float64)
        scaled = self.seen.training is not None or self._update_is_gradient
        for special in evidence.adaptation.special:
            labels = special.label(evidence, partial(self._faces, evidence), scaled)
            if labels is not None:
                evidence = replace(evidence, labels=labels)
        self.surrogate_head = self._surrogate_head(evidence)
        matching = Matching(
            evidence,
            use_first_fc=attack.first_fully_connected,
            distance=distance_for(evidence.adaptation, attack.distance),
            angle=attack.angle,
            labels=attack.labels,
            layers=attack.layers,
            restarts=attack.restarts,
            autocast=torch.bfloat16 if attack.precision == "bfloat16" else None,
            dummy=dummy,
            generator=self.generator,
            surrogate_head=self.surrogate_head,
        )
        self.stages = from_gray(attack.stages) if matching.loss == "spans" else attack.stages
        for special in evidence.adaptation.special:
            if attack.prior is not None and special.looks_like_noise(evidence):
                self.stages = of_noise(attack.stages, by_maps=goal_of(evidence) is not None)
            known = special.equations(evidence)
            if known is not None:
                self.stages = within_range(self.stages, known, evidence)
        self.scene = Scene(evidence, matching, self.generator, attack.prior, attack.restarts)
        if evidence.photos.transforms:
            _settle_draws(matching, self._faces(evidence, GENERIC))
        steps = [
            stage.expected_steps(matching)
            for stage in self.stages
            if evidence.smooth or not stage.smooth_only
        ]
        self.trace = Trace(sum(steps), self.progress, attack.seconds)
        self.best = torch.full((attack.restarts,), float("inf"))
        self.images = torch.empty(0)
        self._started = started

    def _surrogate_head(self, evidence: Evidence) -> dict[str, Tensor]:
        """What is matched with in place of a private part, where the attack does not solve for it.

        Drawn with seeds of its own, so that an attempt that is resumed has the same.
        """
        attack = self.attack
        if not evidence.private:
            return {}
        if attack.unknown == "joint" and evidence.solvable:
            return {}
        seed = self.generator.initial_seed()
        drawn = guess_local_layers(self.seen.model, evidence.private, attack.restarts, seed)
        like = next(iter(evidence.target.values()))
        drawn = {name: value.to(like) for name, value in drawn.items()}
        if attack.unknown != "learned":
            return drawn
        return learn_local_layers(
            evidence.model,
            drawn,
            evidence.shape,
            source=attack.prior.source if attack.prior else "face_gan",
            grayscale=evidence.grayscale,
            seed=seed,
        )

    def search(self) -> None:
        """All stages, in order."""
        found = Found(self.images)
        first, saved = self._resume()
        for number, stage in enumerate(self.stages):
            if number < first or (stage.smooth_only and not self.scene.evidence.smooth):
                continue
            if number and self.trace.time_is_up:
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
        goal = goal_of(scene.evidence) if stage.match == "maps" else None
        if stage.match == "maps" and goal is None:
            return before
        if variables is None:
            variables = stage.varies.begin(scene, before)
        starts = [v.detach().clone() for v in variables]
        leaves = [v.detach().clone().requires_grad_() for v in variables]

        def decode(variable: Tensor) -> Tensor:
            return stage.varies.decode(scene, variable)

        statistics = self._statistics()

        def penalty(variable: Tensor, images: Tensor) -> Tensor:
            found = stage.penalty(variable, images)
            return found + self.attack.batch_norm * statistics(images) if statistics else found

        matching: Matching | MapMatching = scene.matching
        if goal is not None:
            with torch.no_grad():
                begun = torch.cat([decode(v[:1]) for v in starts])
            matching = MapMatching(scene.matching, goal, begun)
        seed = self.generator.initial_seed() + number
        mover = stage.mover(matching, leaves, decode, penalty, self.trace, seed)
        if saved:
            mover.load({k.removeprefix("move/"): v for k, v in saved.items() if "move/" in k})
        mover.run(lambda: self._save(number, starts, mover))
        self._offer(leaves, decode)
        return Found(self.images, leaves, stage.varies)

    def _statistics(self) -> BatchNormPrior | None:
        """The batch-norm prior, where it is asked for and the observation gives it a source."""
        model = self.scene.evidence.model
        if not self.attack.batch_norm:
            return None
        faces = None
        if self.attack.prior is not None:  # what a layer sees of faces stands in for the batch
            drawn = self.scene.faces.sample(PROXY_FACES, self._proxy_generator())
            with torch.no_grad():
                faces = self.scene.faces.images(drawn.to(self.scene.like.device))
        source = from_observation(self.seen, model, faces)
        return BatchNormPrior(model, source) if source else None

    @property
    def _update_is_gradient(self) -> bool:
        return self.seen.update is not None and self.seen.update.kind == "gradient"

    def _faces(self, evidence: Evidence, count: int) -> Tensor:
        """Faces where the attack has a generator of them, else smooth noise; `[count, C, H, W]`."""
        like, prior = next(iter(evidence.target.values())), self.attack.prior
        if prior is None:
            return smooth_noise(count, evidence.shape, self._proxy_generator()).to(like)
        faces = fitted(prior, evidence)
        drawn = faces.sample(count, self._proxy_generator())
        with torch.no_grad():
            return faces.images(drawn.to(like.device)).to(like)

    def mean_face(self) -> Tensor:
        """`[C, H, W]`, of generated faces."""
        drawn = self.scene.faces.sample(MEAN_OF, self._proxy_generator())
        like = self.scene.like
        with torch.no_grad():
            return self.scene.faces.images(drawn.to(like.device)).to(like).mean(0)

    def _proxy_generator(self) -> torch.Generator:
        """Of its own, so that an attempt that is resumed draws the same faces."""
        return torch.Generator().manual_seed(self.generator.initial_seed())

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
            rows = [row.detach() for row in matching.rows(every, r)]
            dummy, distance = matching.gradients(drawn, every, rows, differentiable=False)
            matches.append(matching.objective(dummy, distance).detach())
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

    def _save(self, number: int, starts: Sequence[Tensor], mover: Mover) -> None:
        if self.checkpoint is None:
            return
        if time.monotonic() - self._last_saved < self.checkpoint.every:
            return
        self._last_saved = time.monotonic()
        matching = self.scene.matching
        state = {f"move/{name}": value for name, value in mover.state().items()}
        state |= {f"variable/{i}": value for i, value in enumerate(starts)}
        state |= {"best": self.best, "images": self.images, "random": self.generator.get_state()}
        facts = {
            "stage": number,
            "step": self.trace.step,
            "history": self.trace.history,
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
        self.trace.step = facts["step"]
        self.trace.history = [(step, value) for step, value in facts["history"]]
        matching.evaluations, matching.scales = facts["evaluations"], tuple(facts["scales"])
        self.earlier_seconds = facts["seconds"]
        return facts["stage"], {k: v.to(like.device) for k, v in state.items()}


def _settle_draws(matching: Matching, faces: Tensor) -> None:
    """Find what the defense drew for each photo, by generic faces `[n, C, H, W]`."""

    def distance(face: Tensor, place: int) -> float:
        dummy, apart = matching.gradients(face, [place], differentiable=False)
        with torch.no_grad():
            return float(matching.distance_to(dummy) + apart)

    if matching.loss != "spans" and matching.dummy is None:
        matching.evidence.photos.choose(distance, faces)


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
