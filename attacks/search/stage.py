"""One part of a search, as data: what varies, how it moves, what is added to the match."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.comparison import Comparison
from fedaudit.attacks.search.image_priors import (
    ColorWeights,
    GroupConsistency,
    ImagePrior,
    color_variation,
    face_colors,
    share_above,
    total_variation,
    usual_variation,
)
from fedaudit.attacks.search.map_matching import goal_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.evolution import Evolution
from fedaudit.attacks.search.movers.gauss_newton import GaussNewton
from fedaudit.attacks.search.movers.gradient_descent import Schedule
from fedaudit.attacks.search.movers.mover import Mover, Optimizer, Plan, Task
from fedaudit.attacks.search.movers.round_wise import Movement, OneByOne
from fedaudit.attacks.search.scene import Varies
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.variables.latents import Latent
from fedaudit.attacks.search.variables.pixels import Pixels
from fedaudit.core.choices import check_choices

# Set by hand; what they reach is measured by benchmarks/mixture_bound.py.
NOISE_LR = 0.05
"""Peak step size in pixels of an image that looks like noise."""
NOISE_SPREAD = 0.25
"""Half the width of the noise that its search starts from."""


def descent(task: Task, plan: Plan) -> Mover:
    """Gradient descent: restarts in one pass, or in turn where they cannot share it."""
    whole = Movement(task, plan)
    several = len(task.variables[0]) > 1
    return OneByOne(whole) if several and in_turn(plan.optimizer, task.matching) else whole


MOVERS: Mapping[Optimizer, Callable[[Task, Plan], Mover]] = {
    "adam": descent,
    "signed_adam": descent,
    "lbfgs": descent,
    "cma_es": Evolution,
    "gauss_newton": GaussNewton,
}


def in_turn(optimizer: Optimizer, matching: Comparison) -> bool:
    """Whether restarts are searched one after the other: L-BFGS and replays cannot be mapped."""
    return optimizer == "lbfgs" or not matching.mappable


def expected_steps(plan: Plan, matching: Matching | SpanMatching, restarts: int) -> int:
    """Steps that a mover will count, if nothing stops it."""
    image_by_image = plan.optimizer == "gauss_newton" or (plan.rounds and matching.separable)
    images = matching.evidence.count if image_by_image else 1
    return plan.steps * images * (restarts if in_turn(plan.optimizer, matching) else 1)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a search: what varies, and how it moves.

    Args:
        varies: Pixels, a latent vector, inner feature maps, weights (`variables`).
        steps: Steps an image.
        lr: Peak learning rate.
        optimizer: "adam", "signed_adam", "lbfgs"; "cma_es", whose `steps` are generations and whose
            `lr` is the first standard deviation; or "gauss_newton", which solves for pixels where
            feature maps are known, and whose `lr` is the first damping.
        memory: Share of its mean square of slopes that Adam keeps in a step.
        schedule: Of the learning rate; a name in `search.SCHEDULES`.
        rounds: Sweeps that move one image at a time (Liu et al. 2021); 0 moves all at once.
        total_variation: Weight of the total variation of the images; None for what suits their
            size and color (`usual_variation`).
        usual_share: Share of what is usual that this weight is then.
        color_weights: Of the variation of brightness and of two color differences
            (`color_variation`); None takes that of each channel.
        fading: Power of the share of steps left by which that weight falls; 0 keeps it. None, of a
            search by spans: what suits how much they leave open (`suited`).
        held_variation: Total variation from which on images pay that weight as a whole, and below
            which soon nothing of it (`share_above`): they vary as photos do. 0 asks for it always.
        square_norm: Weight of the mean square of the variable (keeps latents where the generator
            was trained).
        face_colors: Weight of the prior that draws colors to those of faces (`face_colors`).
        colors_fade: It falls as the variation's weight does.
        priors: Further scores of images.
        group: Agreement between restarts.
        patience: Stop when this many steps brought nothing; 0 never.
        keep: How many restarts go on to the next stage, best first; None keeps all.
        average: The mean of all restarts goes on, alone.
        follows: The images so far say what the network was like at each step of local training
            (`SpanMatching.follow`), and with which of them it was trained.
        population: Candidates a generation of CMA-ES; None for its own rule.
        smooth_only: Leave the stage out on networks with non-smooth activations (ReLU,
            max-pooling).
        if_missed: Leave the stage out, of waves, where images so far are nearer than this to what
            layers' inputs span.
        early_first: Of a search by spans: by how much late layers count less, while early ones
            disagree (`SpanMatching.early_first`); 0 weighs all alike.
        match: "update"; or "maps", the images' known maps alone (`map_matching`), or "spans", what
            layers' inputs span (`span_matching`), or "whole", the part of it that does not mix a
            batch: the stage is left out where they are not known.
    """

    varies: Varies
    steps: int
    lr: float
    optimizer: Optimizer = "adam"
    memory: float = 0.999
    schedule: Schedule = "cosine"
    rounds: int = 0
    total_variation: float | None = 0.0
    usual_share: float = 1.0
    color_weights: ColorWeights | None = None
    fading: float | None = 0.0
    held_variation: float = 0.0
    square_norm: float = 0.0
    face_colors: float = 0.0
    colors_fade: bool = False
    priors: tuple[ImagePrior, ...] = ()
    group: GroupConsistency | None = None
    patience: int = 0
    keep: int | None = None
    average: bool = False
    follows: bool = False
    population: int | None = None
    smooth_only: bool = False
    if_missed: float = 0.0
    early_first: float = 0.0
    match: Literal["update", "maps", "spans", "whole"] = "update"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.steps < 0 or self.rounds < 0 or self.patience < 0:
            raise ValueError("steps, rounds and patience must be at least 0")
        if self.lr <= 0:
            raise ValueError("lr must be > 0")
        if min(self.total_variation or 0, self.square_norm, self.face_colors) < 0:
            raise ValueError("the weights of priors must be ≥ 0")
        if self.optimizer == "gauss_newton" and not isinstance(self.varies, Pixels):
            raise ValueError("gauss_newton solves for pixels: varies must be Pixels(…)")
        if self.optimizer == "gauss_newton" and self.match == "maps":
            raise ValueError("gauss_newton finds the known maps itself: leave match='maps' out")

    def penalty(self, variable: Tensor, images: Tensor, left: float = 1.0) -> Tensor:
        """What is added to the match, where a share `left` of the steps is still to be made."""
        penalty, faded = images.new_zeros(()), left ** (self.fading or 0.0)
        if self.total_variation:
            weight = self.total_variation * faded
            if self.held_variation:
                varies = total_variation(images.detach())
                weight *= float(share_above(varies, self.held_variation))
            if self.color_weights is None:
                penalty = penalty + weight * total_variation(images)
            else:
                penalty = penalty + weight * color_variation(images, self.color_weights)
        if self.face_colors:
            weight = self.face_colors * (faded if self.colors_fade else 1.0)
            penalty = penalty + weight * face_colors(images)
        if self.square_norm:
            penalty = penalty + self.square_norm * variable.square().mean()
        for prior in self.priors:
            penalty = penalty + prior(images)
        return penalty

    def expected_steps(self, matching: Matching | SpanMatching, restarts: int) -> int:
        """Steps that its mover will count, if nothing stops it."""
        return expected_steps(self._plan(None, 0), matching, restarts)

    def mover(self, task: Task, seed: int) -> Mover:
        """What moves the variables of the task; `seed` as in `Plan`."""
        project: Callable[[Tensor, Tensor], Tensor] | None = getattr(self.varies, "project", None)
        if project is None:
            return MOVERS[self.optimizer](task, self._plan(None, seed))
        # Starts that are not written to: projections measure distances from them.
        starts, bound = [v.detach().clone() for v in task.variables], project
        plan = self._plan(lambda image, value: bound(starts[image], value), seed)
        return MOVERS[self.optimizer](task, plan)

    def _plan(self, project: Callable[[int, Tensor], Tensor] | None, seed: int) -> Plan:
        return Plan(
            steps=self.steps,
            lr=self.lr,
            rounds=self.rounds,
            optimizer=self.optimizer,
            memory=self.memory,
            schedule=self.schedule,
            project=project,
            patience=self.patience,
            group=self.group,
            population=self.population,
            seed=seed,
        )


BY_SPANS = ("spans", "whole")
"""What stages match that know no labels, and no order of the images."""


def solving_stages(steps: int, damping: float) -> tuple[Stage, ...]:
    """Gauss–Newton on pixels, to end a search where feature maps are known; () without steps."""
    if not steps:
        return ()
    varies = Pixels(start="previous", clamp=False)
    return (Stage(varies=varies, steps=steps, lr=damping, optimizer="gauss_newton"),)


def adjust(stages: Sequence[Stage], evidence: Evidence, *, generated: bool) -> tuple[Stage, ...]:
    """The stages, tuned to the evidence, of an attack with a generator if `generated`."""
    usual = usual_variation(evidence.pixels)
    choice = tuple(
        replace(stage, total_variation=usual * stage.usual_share)
        if stage.total_variation is None
        else stage
        for stage in stages
    )
    for special in evidence.adaptation.special:
        if generated and special.looks_like_noise(evidence):
            choice = of_noise(choice, by_maps=goal_of(evidence) is not None)
        equations = special.equations(evidence)
        if equations is not None:
            choice = within_range(choice, equations, evidence)
    return choice


def from_gray(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages for matching spans, where the start matters and the slope is exact.

    What is wrong in a generated face holds on to it longer than noise does: an attack that leaves
    its generator in the end never enters it, and gives its steps to pixels. One that stays inside,
    as published, does so here. Adam's own steps end nearer than those of its sign.
    """
    free = [stage for stage in stages if isinstance(stage.varies, Pixels)]
    if free and free[0] is not stages[0]:
        spare = sum(stage.steps for stage in stages[: stages.index(free[0])])
        free[0] = replace(free[0], varies=Pixels(), steps=free[0].steps + spare)
    choice = free or stages
    return tuple(
        replace(
            stage,
            color_weights=None,
            optimizer="adam" if stage.optimizer == "signed_adam" else stage.optimizer,
        )
        for stage in choice
    )


def of_noise(stages: Sequence[Stage], *, by_maps: bool) -> tuple[Stage, ...]:
    """The stages for an image that looks like noise, as InstaHide's masks leave them.

    No generator draws it and no prior knows it. Its pixels are free from the start, first by its
    known maps alone, which cost the least, then by the update; with all steps, and twice as many.
    """
    steps = sum(stage.steps for stage in stages)
    start = Stage(varies=Pixels(spread=NOISE_SPREAD), steps=steps, lr=NOISE_LR, match="maps")
    if not by_maps:
        return (replace(start, match="update"),)
    return start, Stage(varies=Pixels(start="previous"), steps=2 * steps, lr=NOISE_LR)


def within_range(stages: Sequence[Stage], equations: int, reading: Reading) -> tuple[Stage, ...]:
    """The stages that so few equations can lead; the last of them has the steps of all others.

    Pixels need as many equations; the generator's latent vectors have a hundred numbers. An attack
    that has no generator, or never enters its latent space, stays as it is.
    """
    latent = [stage for stage in stages if isinstance(stage.varies, Latent)]
    if not latent or equations >= reading.pixels:
        return tuple(stages)
    left = sum(stage.steps for stage in stages) - sum(stage.steps for stage in latent)
    return (*latent[:-1], replace(latent[-1], steps=latent[-1].steps + left))
