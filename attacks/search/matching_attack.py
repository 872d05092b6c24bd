"""The one attack that all searches are: stages that vary something until the update is explained.

An attack by name is a preset of it (`attacks.presets`); `search_run.py` carries it out.
"""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch

from fedaudit.attacks.adaptive.assumptions import distance_for, how_adaptive
from fedaudit.attacks.adaptive.unmasking import Unmasking
from fedaudit.attacks.evidence.labels.of_images import labels_of_images
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather, gather_inputs
from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.attacks.search.attacker_capabilities import attacker_of
from fedaudit.attacks.search.augmented_views import begin_of_views, one_a_photo
from fedaudit.attacks.search.batch_norm_prior import prior_of
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.closed_form import solve_photos
from fedaudit.attacks.search.color_fit import fit_colors
from fedaudit.attacks.search.completion import complete_once, forget_completed
from fedaudit.attacks.search.distances import DISTANCES, MINDS_LENGTH
from fedaudit.attacks.search.local_steps import LocalSteps, dummy_update_of
from fedaudit.attacks.search.map_matching import are_second_to_spans
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.named_layers import check_layers
from fedaudit.attacks.search.open_contrast import with_usual_contrast, with_usual_exposure
from fedaudit.attacks.search.scene import Scene, generic_faces
from fedaudit.attacks.search.schedules.held_waves import with_held_waves
from fedaudit.attacks.search.schedules.span_stages import opening, shown_stages
from fedaudit.attacks.search.schedules.suited import restarts_of, suited
from fedaudit.attacks.search.search_run import SearchRun, steps_of
from fedaudit.attacks.search.slopes import BY_SLOPE, check_slopes
from fedaudit.attacks.search.span_matching import (
    SEEN,
    SpanMatching,
    is_left_to_spans,
    lead_of_spans,
    open_parts,
    unread_parts,
)
from fedaudit.attacks.search.stage import BY_SPANS, Stage, adjust, from_gray
from fedaudit.attacks.search.surrogate_head import Unknown, surrogate_head
from fedaudit.attacks.search.trace import Trace
from fedaudit.attacks.search.vanishing_gradients import (
    count_contributing,
    of_contributing,
    with_vanished,
)
from fedaudit.attacks.training.dummy_update import DummyUpdate
from fedaudit.core.choices import check_choices
from fedaudit.core.errors import UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.models.batch_norm import batch_norm_layers
from fedaudit.models.derivatives import twice_differentiable

GENERIC = 12
"""Images with which draws are tried."""
SMALL = 500_000
"""Parameters below which double precision costs nothing: the operations' overhead does."""

Precision = Literal["auto", "float64", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class MatchingAttack:
    """Search for images whose gradient explains the update, stage after stage.

    Each restart's best images over all stages are kept, and of the restarts the best, both by the
    attack's own match.

    Args:
        stages: In order; a stage starts from what the one before found.
        distance: Between gradients; a name in `DISTANCES`.
        angle: See `Matching`.
        first_fully_connected: Use what the first fully connected layer gives away in closed form.
        labels: "inferred", or "soft": searched together with the images.
        spans_first: Search by what layers' inputs span before the stages, where that decides the
            images (`are_second_to_spans`); they are left out if it explains the update.
        match: Compare by the "gradient" of dummy images, or by what "spans" the inputs of each
            layer (`SpanMatching`): no labels and no loss are needed, and nothing is known of order.
        layers: Match only parameters whose names start so; () matches all.
        restarts: Independent starts, in one pass.
        prior: The face generator, for stages that draw with one.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
        precision: "auto" computes in float64 where the network is smooth and small (it costs
            nothing there, and the match goes on falling below what float32 can tell), else in
            float32, exact also on CUDA. "bfloat16" mixes precisions: faster on a GPU, less exact.
        local_steps: How a client's several steps are met. "start": as one step from the broadcast
            weights. "path": gradients along the straight line to the weights that it shared, at
            the pace of a simulated local training. "replay": the steps themselves. Settings that
            the threat model does not grant are guessed by simulating plausible ones.
        batch_norm: Weight of the batch-norm statistics (`batch_norm_prior`) on networks that have
            them: of relative ones, unless the distance minds the gradients' length.
        reads_gray: Search one channel where the update proves that images are gray.
        face_colors: Weight of the prior that draws the colors of a batch to those of faces, behind
            batch norm in training mode, which hides them; with match = "spans". Their contrast is
            then taken by the highlights that faces have.
        unknown: How a head, or more, that stays on the device is met. "joint": solved for with the
            images, as far as it acts on what was shared: what the inputs of the last layers span
            (`layer_spans`), or one free vector an image (`Matching`). "learned": trained to
            tell generated people apart. "guessed": random, each restart others. Local layers
            with nothing public before them cannot be solved for, and are guessed.
        complete_steps: Steps of Gauss–Newton by which a layer's gradient, of which Adam or pruning
            left some, is completed, at most (`completion`), with match = "spans"; 0 leaves it at
            these, as do `seconds` and `layers`.
        unmasking: How a network is trained that undoes the masks of mixtures, where a defense puts
            them on; of faces from the same source as `prior`.
    """

    stages: tuple[Stage, ...]
    distance: str = "cosine"
    angle: bool = False
    first_fully_connected: bool = False
    labels: Literal["inferred", "soft"] = "inferred"
    match: Literal["gradient", "spans"] = "gradient"
    spans_first: bool = False
    layers: tuple[str, ...] = ()
    restarts: int = 1
    prior: FaceGenerator | None = None
    seconds: float | None = None
    precision: Precision = "auto"
    local_steps: LocalSteps = "start"
    batch_norm: float = 0.0
    reads_gray: bool = True
    face_colors: float = 0.0
    unknown: Unknown = "joint"
    complete_steps: int = 0
    unmasking: Unmasking = field(default_factory=Unmasking)

    reads: ClassVar = frozenset({Update})

    def __post_init__(self) -> None:
        check_choices(self)
        object.__setattr__(self, "layers", tuple(self.layers))
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
        """Knowledge that it needs; auxiliary faces only for a generator or local layers."""
        basic = frozenset({Knowledge.MODEL, Knowledge.BASIC})
        faces = self.prior is not None or self.unknown == "learned"
        return basic | {Knowledge.AUXILIARY} if faces else basic

    def halved(self) -> "MatchingAttack":
        """The same with half of the steps in each stage."""
        stages = tuple(replace(stage, steps=-(-stage.steps // 2)) for stage in self.stages)
        steps, seconds = -(-self.complete_steps // 2), self.seconds and self.seconds / 2
        return replace(self, stages=stages, complete_steps=steps, seconds=seconds)

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Reconstruction:
        """Reconstruct the batch behind one update."""
        return self.with_evidence(
            None, seen, generator=generator, progress=progress, checkpoint=checkpoint
        )

    @twice_differentiable()
    def with_evidence(
        self,
        evidence: Evidence | None,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Reconstruction:
        """Reconstruct from evidence that `gather` has given already; None gathers it."""
        start, drawn = time.process_time(), generator.get_state()

        def begin(one: Observation) -> SearchRun:
            return self._begin(one, generator, start, progress, checkpoint, evidence)

        run = begin_of_views(begin, seen, generator) if self.match == "spans" else begin(seen)
        contributing = count_contributing(run.scene.leading, seen) if evidence is None else None
        asks = evidence is None and run.exact is None
        completed = self._completed(run, seen, generator) if asks else None
        kept: Any = {"generator": generator, "progress": progress, "checkpoint": checkpoint}
        spent = time.process_time() - start
        if contributing is not None:
            generator.set_state(drawn)
            alone = self.with_evidence(None, of_contributing(seen, contributing), **kept)
            return with_vanished(replace(alone, seconds=alone.seconds + spent), seen)
        if completed is not None:
            generator.set_state(drawn)
            found = self.with_evidence(completed, seen, **kept)
            if not run.scene.evidence.signs or found.objective < SEEN:
                return replace(found, seconds=found.seconds + spent)
            forget_completed(run)  # signs of all layers lead further than what late ones span
        run.search()
        evidence, matching, best = run.scene.evidence, run.scene.matching, int(run.best.argmin())
        labels, images = evidence.known_labels, run.images[best]
        if any(stage.face_colors for stage in run.stages):
            images = with_usual_exposure(run.scene.leading, images)
        else:
            spans = run.scene.leading if run.seen_by_spans else matching
            images = with_usual_contrast(spans, images, of_faces=self.face_colors > 0)
        evaluations, credit = [run.scene.evaluations], False
        if self.match == "spans" or (run.seen_by_spans and evidence.count > 1):
            reader = run.scene.leading.reader if run.scene.leading else None
            labels = labels_of_images(evidence, images, reader)
            credit = run.seen_by_spans
            if run.exact is None:  # what closed forms give has its colors
                images = fit_colors(seen, run.scene.leading, images, labels, evaluations)
            images, labels = one_a_photo(run.scene.leading, images, labels, seen.batch_size)
        else:
            if matching.loss == "soft" and not matching.fixed:
                labels = torch.stack([rows[best] for rows in matching.free]).argmax(1)
            again = partial(self._again, generator)
            attacker = attacker_of(run, seen, again, self.prior, self.unmasking, evaluations)
            images, labels, credit = evidence.reveal(images, labels.cpu(), attacker)
        by_spans = isinstance(matching, SpanMatching)  # they do not mind what each image weighs
        word = how_adaptive(seen, matched=matching.follows, weighed=by_spans, handled=credit)
        guessed = bool(matching.fixed) and self.unknown != "learned"  # no account of the device's
        if guessed or (by_spans and not matching.follows and word in ("known", "estimated")):
            word = "no"
        return Reconstruction(
            images=images.cpu().float(),
            labels=labels,
            objective=float(run.best[best]),
            iterations=run.trace.step,
            gradient_evaluations=sum(evaluations),
            seconds=run.seconds,
            adaptive=word,
            history=tuple(run.trace.history),
            restarts=self.restarts,
            closed_form=run.closed_form,
            searched_by=run.searched_by,
            unused=(*evidence.unused, *self._left_out(run)),
        )

    def _left_out(self, run: SearchRun) -> tuple[str, ...]:
        """What a search by spans went without, a sentence each."""
        if self.match != "spans":
            return ()
        spans = None if run.closed_form else run.scene.leading
        return (*unread_parts(run.scene.evidence), *open_parts(spans))

    def _completed(
        self, run: SearchRun, seen: Observation, generator: torch.Generator
    ) -> Evidence | None:
        """What known numbers say of the whole gradient, where they say enough."""
        if self.match != "spans" or self.layers or self.seconds or not self.complete_steps:
            return None
        # A photo of p01 through a trained ResNet-18 in training mode has 0.78 by what late layers'
        # completed gradients span, in 70 CPU s, 0.85 by all signs in 28; a fresh one 0.03 and 0.72.
        if run.scene.evidence.signs and run.scene.evidence.count == 1:
            return None
        coarse = replace(self, stages=shown_stages(self.stages), restarts=1)
        show = partial(coarse.with_evidence, seen=seen, generator=generator)
        return complete_once(run, show, self.complete_steps)

    def _again(self, generator: torch.Generator, seen: Observation) -> SearchRun:
        """A further search, of another observation, before its first step."""
        return self._begin(seen, generator, time.process_time())

    def _begin(
        self,
        seen: Observation,
        generator: torch.Generator,
        start: float,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
        evidence: Evidence | None = None,
    ) -> SearchRun:
        """The search of one observation, before its first step."""
        by_spans = self.match == "spans"
        evidence = evidence or (gather_inputs if by_spans else gather)(seen)
        check_layers(self.layers, dict(evidence.model.named_parameters()), evidence.target)
        if not self.reads_gray:
            evidence = replace(evidence, grayscale=False)
        mode = "start" if by_spans else self.local_steps
        dummy = dummy_update_of(seen, evidence, mode, generator)
        free = not by_spans and dummy is None and self.prior is None and evidence.smooth
        small = sum(p.numel() for p in evidence.model.parameters()) < SMALL
        wide = self.precision == "float64" or (self.precision == "auto" and free and small)
        if wide:
            evidence = evidence.to(torch.float64)
        seed = generator.initial_seed()
        gradient = seen.update is not None and seen.update.kind == "gradient"
        faces = partial(generic_faces, self.prior, evidence, seed)
        for special in evidence.adaptation.special:
            labels = special.label(evidence, faces, seen.training is not None or gradient)
            if labels is not None:
                evidence = replace(evidence, labels=labels)
        matching = self._comparison(seen, evidence, dummy, generator)
        scene = Scene(evidence, matching, generator, self.prior, self.restarts)
        stages = self.stages
        if isinstance(matching, SpanMatching) and not by_spans:
            stages = from_gray(stages)
        stages = adjust(stages, evidence, generated=self.prior is not None)
        leading = matching if by_spans and isinstance(matching, SpanMatching) else None
        if self.spans_first and isinstance(matching, Matching):
            steps = sum(stage.steps for stage in self.stages)
            if dummy is None and not matching.fixed and are_second_to_spans(evidence, steps):
                leading = lead_of_spans(evidence, self.layers, self.restarts)
            if leading is not None and leading.decides:
                scene.spans, stages = leading, (*opening(self.stages), *stages)
        coupled = any(m.training for m in batch_norm_layers(evidence.model).values())
        if coupled:
            weight = self.face_colors
            stages = tuple(
                replace(one, face_colors=weight) if one.match in BY_SPANS else one for one in stages
            )
        if leading is not None:
            chosen = suited(
                stages,
                open_detail=leading.leaves_detail,
                pixels=evidence.pixels,
                coupled=coupled and evidence.count == 1,
                whole=leading.whole is not None,
                drifted=leading.drifted,
                single=evidence.count == 1,
                averaged=self.restarts == 1,
                followed=evidence.followed is not None,
                pruned=leading.pruned,
                blurred=leading.blurred,
            )
            stages = with_held_waves(chosen, stages, leading)
            scene.restarts = restarts_of(stages, self.restarts)
        solves = by_spans or self.spans_first
        exact = solve_photos(evidence, seen, leading, seed) if solves else None
        if isinstance(matching, Matching) and evidence.photos.transforms and dummy is None:
            evidence.photos.choose(matching.distance_in_place, scene.generic_faces(GENERIC))
        trace = Trace(steps_of(stages, scene) if exact is None else 1, progress, self.seconds)
        drawn = scene.generic_faces if self.prior is not None else None
        minds, model = self.distance in MINDS_LENGTH, scene.evidence.model
        if exact is None and any(stage.optimizer in BY_SLOPE for stage in stages):
            check_slopes(model, evidence.shape)
        penalty = partial(prior_of, seen, model, self.batch_norm, drawn, relative=not minds)
        return SearchRun(scene, stages, trace, penalty, checkpoint, repr(self), start, exact)

    def _comparison(
        self,
        seen: Observation,
        evidence: Evidence,
        dummy: DummyUpdate | None,
        generator: torch.Generator,
    ) -> Matching | SpanMatching:
        """What dummy images are compared by."""
        settings: dict[str, Any] = {"layers": self.layers, "restarts": self.restarts}
        if self.match == "spans":
            return SpanMatching(evidence, angle=self.angle, **settings)
        source, seed = self.prior.source if self.prior else "face_gan", generator.initial_seed()
        surrogate = surrogate_head(evidence, seen.model, self.unknown, self.restarts, source, seed)
        use_first_fc = self.first_fully_connected
        needs_replay = dummy is not None or bool(surrogate)
        if not needs_replay and is_left_to_spans(evidence, self.layers, use_first_fc=use_first_fc):
            return SpanMatching(evidence, angle=True, **settings)
        return Matching(
            evidence,
            use_first_fc=use_first_fc,
            distance=distance_for(evidence.adaptation, self.distance),
            angle=self.angle,
            labels=self.labels,
            autocast=torch.bfloat16 if self.precision == "bfloat16" else None,
            dummy=dummy,
            generator=generator,
            surrogate_head=surrogate,
            **settings,
        )
