"""A search in progress: stage after stage, from its start or from a checkpoint."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedaudit.attacks.evidence.labels.of_images import in_order_of_labels
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.closed_form import ClosedForm
from fedaudit.attacks.search.comparison import Comparison, free_rows
from fedaudit.attacks.search.faint_images import redraw_faint
from fedaudit.attacks.search.image_priors import total_variation
from fedaudit.attacks.search.map_matching import MapMatching, goal_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.mini_batches import are_told_apart
from fedaudit.attacks.search.movers.mover import Decode, Mover, Task
from fedaudit.attacks.search.scene import Scene, StageResult
from fedaudit.attacks.search.span_matching import EXACT, EXPLAINED, SEEN, SpanMatching
from fedaudit.attacks.search.stage import BY_SPANS, Stage
from fedaudit.attacks.search.stage_conditions import is_left_out
from fedaudit.attacks.search.trace import Trace
from fedaudit.core.reconstruction import SearchedBy


@dataclass
class SearchRun:
    """One call of an attack, from its start or from a checkpoint.

    Args:
        scene: Evidence, match, generator of faces, all randomness.
        stages: In order.
        trace: Counts every step.
        penalty: Called as each stage begins: what it adds for images; None for nothing.
        exact: What a closed form gives: there is nothing to search then.
        checkpoint: Where to keep how far it is; None keeps nothing.
        attack: The attack's settings, as text, for the checkpoint.
        started: CPU seconds of the process when the attack began.
    """

    scene: Scene
    stages: Sequence[Stage]
    trace: Trace
    penalty: Callable[[], Callable[[Tensor], Tensor] | None] = lambda: None
    checkpoint: Checkpoint | None = None
    attack: str = ""
    started: float = field(default_factory=time.process_time)
    exact: ClosedForm | None = None
    earlier_seconds: float = 0.0
    _last_saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.best = torch.full((self.scene.restarts,), float("inf"))
        self.images = torch.empty(0)
        self.seen_by_spans = False

    @property
    def seconds(self) -> float:
        """CPU seconds so far, those before an interruption included."""
        return time.process_time() - self.started + self.earlier_seconds

    @property
    def searched_by(self) -> SearchedBy:
        """By what the images were searched for that are kept."""
        if self.exact is not None:
            return "closed form"
        matching = self.scene.matching
        if self.seen_by_spans or isinstance(matching, SpanMatching):
            # Ways of their own: spans find more, and must not vouch for what they are not used by.
            if self.scene.evidence.signs:
                return "signs"
            if self.scene.evidence.completed:
                return "completed spans"
            leading = self.scene.leading or matching
            pruned = isinstance(leading, SpanMatching) and leading.pruned
            return "pruned spans" if pruned else "spans"
        by_maps = any(stage.match == "maps" for stage in self.stages)
        if matching.has_features or (by_maps and goal_of(self.scene.evidence) is not None):
            return "maps"
        return "gradients"

    @property
    def closed_form(self) -> bool:
        """Whether the images follow by arithmetic, and equations to spare bear them out."""
        return self.exact is not None and self.exact.proven

    def search(self) -> None:
        """All stages, in order; none where closed forms say it all."""
        if self.exact is not None:
            self._offer(
                [one[None] for one in self.exact.images], lambda images: images, self.scene.spans
            )
            self.trace.add(float(self.best.min()))
            return
        result = StageResult(self.images)
        first, state = self._resume()
        for number, stage in enumerate(self.stages):
            if number < first or (stage.smooth_only and not self.scene.evidence.smooth):
                continue
            if number and self.trace.time_is_up:
                break
            if self.seen_by_spans and stage.match not in BY_SPANS:
                break
            variables = None
            if state:
                variables = [state[f"variable/{i}"] for i in range(self.scene.evidence.count)]
                self.scene.keep(range(len(variables[0])))
            result = self._stage(number, stage, result, variables, state)
            state = {}
            if stage.keep and stage.keep < self.scene.restarts:
                result = self._cull(result, stage.keep)
            if stage.average and self.scene.restarts > 1:
                result = self._average()
        if self.checkpoint:
            self.checkpoint.clear()

    def _stage(
        self,
        number: int,
        stage: Stage,
        before: StageResult,
        variables: list[Tensor] | None,
        state: dict[str, Tensor],
    ) -> StageResult:
        scene = self.scene
        goal = goal_of(scene.evidence) if stage.match == "maps" else None
        if stage.match == "maps" and goal is None:
            return before
        whole = scene.leading.whole if stage.match == "whole" and scene.leading else None
        if stage.match == "whole" and whole is None:
            return before
        by_spans = stage.match in BY_SPANS and isinstance(scene.matching, Matching)
        if by_spans and scene.spans is None:
            return before
        if variables is None and is_left_out(stage, before, scene.leading):
            return before
        before = self._follow(stage, before, begins=variables is None)
        if variables is None:
            if by_spans and scene.leading is not None and len(before.images):
                own = [scene.leading.in_own_order(images) for images in before.images]
                before = replace(before, images=torch.stack(own))
            variables = stage.varies.begin(scene, before)
        starts = [v.detach().clone() for v in variables]
        leaves = [v.detach().clone().requires_grad_() for v in variables]

        def decode(variable: Tensor) -> Tensor:
            return stage.varies.decode(scene, variable)

        scene_penalty = self.penalty()

        def penalty(variable: Tensor, images: Tensor, left: float) -> Tensor:
            own = stage.penalty(variable, images, left)
            return own + scene_penalty(images) if scene_penalty else own

        matching: Comparison = scene.matching
        if isinstance(matching, Matching):
            matching.begin_stage()
        if goal is not None:
            with torch.no_grad():
                start_images = torch.cat([decode(v[:1]) for v in starts])
            matching = MapMatching(scene.matching, goal, start_images)
        if by_spans and scene.spans is not None:
            matching = scene.spans
        if whole is not None:
            matching = whole
        matching = _in_order(matching, stage.early_first)

        def is_exact() -> bool:
            now = torch.cat([decode(leaf.detach()) for leaf in leaves])
            return isinstance(matching, SpanMatching) and matching.distance(now) < EXACT

        task = Task(matching, leaves, decode, penalty, self.trace, is_exact)
        mover = stage.mover(task, scene.seed + number)
        if state:
            mover.load({k.removeprefix("move/"): v for k, v in state.items() if "move/" in k})
        mover.run(lambda: self._save(number, starts, mover))
        if isinstance(matching, SpanMatching) and scene.leading is not None:
            scene.leading.evaluations = matching.evaluations
        self._offer(leaves, decode, scene.spans if by_spans else None, stage.held_variation)
        return StageResult(self.images, leaves, stage.varies)

    def _follow(self, stage: Stage, before: StageResult, *, begins: bool) -> StageResult:
        """Read the network at each step from now on; nothing before compares with that.

        A stage that begins, and is not resumed, draws anew those images so far of which the update
        says next to nothing.
        """
        spans = self.scene.leading
        if not stage.follows or spans is None or not are_told_apart(self.scene.evidence):
            return before
        images = self.images
        if begins:
            images = torch.stack([redraw_faint(spans, one) for one in images])
        if not spans.follow(images[int(self.best.argmin())]):
            return before
        self.images, self.best = images, torch.full_like(self.best, float("inf"))
        return replace(before, images=images)

    def _offer(
        self,
        variables: Sequence[Tensor],
        decode: Decode,
        spans: SpanMatching | None = None,
        usual: float = 0.0,
    ) -> None:
        """Keep, for each restart, the images with the least match of all stages.

        Those that vary far more than is `usual`, if that is not 0, give way to any others. Those
        that were searched by `spans` are brought in the order of the labels.
        """
        matching = self.scene.matching
        every = range(len(variables))
        images, matches = [], []
        with torch.no_grad():
            for r in range(len(variables[0])):
                dummies = decode(torch.stack([v[r] for v in variables])).clamp(0, 1)
                if spans is not None:
                    self.seen_by_spans |= spans.distance(dummies) < SEEN
                    dummies = in_order_of_labels(self.scene.evidence, dummies)
                images.append(dummies)
        for r, dummies in enumerate(images):
            rows = [row.detach() for row in free_rows(matching, every, r)]
            dummy, distance = matching.gradients(dummies, every, rows, differentiable=False)
            matches.append(matching.objective(dummy, distance).detach())
        now, dummies = torch.stack(matches).cpu(), torch.stack(images)
        if not len(self.images):
            self.images, self.best = dummies, now
            return
        here, before = (self._roughness(each, usual) for each in (dummies, self.images))
        rough = now + here < self.best + before
        nearest = torch.minimum(now, self.best)
        better = torch.where(nearest < EXPLAINED, now < self.best, rough)
        self.best = torch.where(better, now, self.best)
        self.images = torch.where(
            better.to(dummies.device).view(-1, 1, 1, 1, 1), dummies, self.images
        )

    def _roughness(self, images: Tensor, usual: float) -> Tensor:
        """What images `[R, N, C, H, W]` pay for their variation when stages are compared, `[R]`."""
        matching = self.scene.matching
        weight = matching.roughness if isinstance(matching, SpanMatching) else 0.0
        varies = torch.stack([total_variation(one).cpu() for one in images])
        above = (varies / usual - 2).clamp(min=0) if usual else 0.0
        return weight * varies + above

    def _cull(self, result: StageResult, keep: int) -> StageResult:
        """Only the best restarts go on."""
        rows = self.best.argsort()[:keep].tolist()
        self.best, self.images = self.best[rows], self.images[rows]
        self.scene.keep(rows)
        variables = [v.detach()[rows] for v in result.variables]
        return StageResult(self.images, variables, result.varied)

    def _average(self) -> StageResult:
        """The mean of the restarts, each in the order of what is known of single images.

        Where a search goes wrong is by chance: what restarts share is the images.
        """
        spans = self.scene.leading
        own = [spans.in_own_order(one) if spans else one for one in self.images]
        mean = torch.stack(own).mean(0)
        self.scene.keep([0])
        self.images, self.best = torch.empty(0), torch.full((1,), float("inf"))
        self._offer([one[None] for one in mean], lambda images: images, self.scene.spans)
        return StageResult(self.images)

    # --- resuming -------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """Hash of attack, observation and seed: no checkpoint of another search is resumed."""
        digest = hashlib.sha256(self.attack.encode())
        digest.update(str(self.scene.seed).encode())
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
        state |= {
            "best": self.best,
            "images": self.images,
            "random": self.scene.generator.get_state(),
        }
        facts = {
            "stage": number,
            "step": self.trace.step,
            "history": self.trace.history,
            "evaluations": self.scene.evaluations,
            "scales": matching.scales,
            "seconds": self.seconds,
        }
        self.checkpoint.save(self.fingerprint(), facts, state)

    def _resume(self) -> tuple[int, dict[str, Tensor]]:
        """The stage to go on with, and what was saved in it."""
        record = self.checkpoint.load(self.fingerprint()) if self.checkpoint else None
        if record is None:
            return 0, {}
        facts, state = record
        matching = self.scene.matching
        like = self.scene.like
        self.best, self.images = state["best"].cpu(), state["images"].to(like)
        self.scene.generator.set_state(state["random"].cpu())
        self.trace.step = facts["step"]
        self.trace.history = [(step, value) for step, value in facts["history"]]
        matching.evaluations, matching.scales = facts["evaluations"], tuple(facts["scales"])
        self.earlier_seconds = facts["seconds"]
        return facts["stage"], {k: v.to(like.device) for k, v in state.items()}


def _in_order(matching: Comparison, early_first: float) -> Comparison:
    """The same, late layers counting less while early ones disagree, if that is asked for."""
    if early_first and isinstance(matching, SpanMatching):
        return matching.early_first(early_first)
    return matching


def steps_of(stages: Sequence[Stage], scene: Scene) -> int:
    """Steps that a search will count, if nothing stops it or is left out."""
    total, restarts = 0, scene.restarts
    for stage in stages:
        if stage.smooth_only and not scene.evidence.smooth:
            continue
        spans = scene.spans if stage.match in BY_SPANS else None
        total += stage.expected_steps(spans or scene.matching, restarts)
        restarts = 1 if stage.average else min(stage.keep or restarts, restarts)
    return total
