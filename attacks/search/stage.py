"""One part of a search, as data: what varies, how it moves, what is added to the match."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.attacks.search.comparison import Comparison
from fedaudit.attacks.search.image_priors import (
    GroupConsistency,
    ImagePrior,
    WithinRange,
    color_variation,
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
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.variables import MENDED, Latent, Pixels, Varies
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


def expected_steps(plan: Plan, matching: Matching | SpanMatching) -> int:
    """Steps that a mover will count, if nothing stops it."""
    image_by_image = plan.optimizer == "gauss_newton" or (plan.rounds and matching.separable)
    images = matching.evidence.count if image_by_image else 1
    return plan.steps * images * (matching.restarts if in_turn(plan.optimizer, matching) else 1)


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
        by_color: Take the variation of colors apart from that of brightness (`color_variation`).
        fading: Power of the share of steps left by which that weight falls; 0 keeps it. None, of a
            search by spans: what suits how much they leave open (`suited`).
        square_norm: Weight of the mean square of the variable (keeps latents where the generator
            was trained).
        priors: Further scores of images.
        group: Agreement between restarts.
        patience: Stop when this many steps brought nothing; 0 never.
        keep: How many restarts go on to the next stage, best first; None keeps all.
        population: Candidates a generation of CMA-ES; None for its own rule.
        smooth_only: Leave the stage out on networks with non-smooth activations (ReLU,
            max-pooling).
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
    by_color: bool = False
    fading: float | None = 0.0
    square_norm: float = 0.0
    priors: tuple[ImagePrior, ...] = ()
    group: GroupConsistency | None = None
    patience: int = 0
    keep: int | None = None
    population: int | None = None
    smooth_only: bool = False
    match: Literal["update", "maps", "spans", "whole"] = "update"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.steps < 0 or self.rounds < 0 or self.patience < 0:
            raise ValueError("steps, rounds and patience must be at least 0")
        if self.lr <= 0:
            raise ValueError("lr must be > 0")
        if (self.total_variation or 0) < 0 or self.square_norm < 0:
            raise ValueError("the weights of priors must be ≥ 0")
        if self.optimizer == "gauss_newton" and not isinstance(self.varies, Pixels):
            raise ValueError("gauss_newton solves for pixels: varies must be Pixels(…)")
        if self.optimizer == "gauss_newton" and self.match == "maps":
            raise ValueError("gauss_newton finds the known maps itself: leave match='maps' out")

    def penalty(self, variable: Tensor, images: Tensor, left: float = 1.0) -> Tensor:
        """What is added to the match, where a share `left` of the steps is still to be made."""
        penalty = images.new_zeros(())
        if self.total_variation:
            weight = self.total_variation * left ** (self.fading or 0.0)
            variation = color_variation if self.by_color else total_variation
            penalty = penalty + weight * variation(images)
        if self.square_norm:
            penalty = penalty + self.square_norm * variable.square().mean()
        for prior in self.priors:
            penalty = penalty + prior(images)
        return penalty

    def expected_steps(self, matching: Matching | SpanMatching) -> int:
        """Steps that its mover will count, if nothing stops it."""
        return expected_steps(self._plan(None, 0), matching)

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


# By photos of p01 and p02 of OpenPeople at 64 px, with a ResNet-18 trained on the others: SSIM of
# one went from 0.946 to 0.988 (0.971 with a tenth of the last weight), of a dark one from 0.885 to
# 0.980 with that tenth, in as many seconds. Where images are mended, steps half as long end nearer.
# benchmarks/subspace.py reports on p09 and p10.
SPAN_STEPS, SPAN_MENDS, SPAN_POLISH, SPAN_LR = 100, 1, 16, 0.2
SPAN_VARIATION, SPAN_FADING = 1.0, 2.0
"""Of a search by spans, by Adam and then L-BFGS; the variation's weight falls to 0."""
SPAN_MEMORY = 0.99
"""Of Adam, whose slopes grow smaller by orders within a hundred steps."""
# By a photo of p01 of OpenPeople through a fresh ResNet-18 (benchmarks/deployed_networks.py with
# --training reports on p09). At 64 px SSIM 0.71 with 1 (falling as a square, then L-BFGS), 0.91
# with 5, 0.89 with 8, 0.63 with 20. At 112 px 0.33 (cosine to the person by SFace 0.07) with 32 and
# 100 steps, 0.51 with twice the steps, mended; 0.60 (0.38) on half the grid (weight 8), then on the
# whole (16), 100 steps each; 0.79 (0.70) with 4, then 8, and 200 steps each. A batch of four ends
# at a distance of 0.09 with 1, 0.20 with 8: it is left as it is.
COUPLED_VARIATION, COUPLED_AT, COUPLED_STEPS = 6.0, 3 * 64 * 64, 2
"""Factor of that weight, at so many unknown numbers of an image, and of the steps, for one photo
behind batch norm in training mode. Images of more numbers are searched on grids of fewer first; the
weight is that of the coarsest, twice as large on each finer one, where steps are half as long."""
# By a photo of p01 through a fresh MobileFaceNet at 112 px: SSIM 0.40 with 0.3, 0.90 with 1 (18 CPU
# s), 0.93 with 2 and half more steps (24), 0.90 with 3 and twice the steps (31).
OPEN_VARIATION, OPEN_STEPS = 2.0, 1.5
"""Factor of that weight, and of the steps, where spans leave fine detail open."""
TRACE_OF_VARIATION = 1e-3
"""Weight of the total variation while polishing, where the distance is below 1e-3."""


def span_stages(
    steps: int = SPAN_STEPS,
    polish: int = SPAN_POLISH,
    *,
    mends: int = SPAN_MENDS,
    lr: float = SPAN_LR,
    total_variation: float = SPAN_VARIATION,
    fading: float | None = None,
) -> tuple[Stage, ...]:
    """Adam on pixels from noise, again from mended images, then L-BFGS, by what inputs span.

    Nothing is polished where the weight of the variation does not fall (`fading` 0).
    """
    search = Stage(
        varies=Pixels(start="normal"),
        steps=steps,
        lr=lr,
        memory=SPAN_MEMORY,
        total_variation=total_variation,
        fading=fading,
        match="spans",
    )
    again = [
        replace(
            search,
            varies=MENDED,
            lr=lr / 2**mend,
            total_variation=total_variation / 2**mend,
            by_color=True,
        )
        for mend in range(1, mends + 1)
    ]
    last = Stage(
        varies=Pixels(start="previous"),
        steps=polish,
        lr=1.0,
        optimizer="lbfgs",
        total_variation=TRACE_OF_VARIATION,
        by_color=True,
        priors=(WithinRange(),),
        patience=5,
        match="spans",
    )
    return (search, *again, *([last] if polish and fading != 0 else []))


def suited(
    stages: Sequence[Stage], *, open_detail: bool, coupled_pixels: int = 0, whole: bool = False
) -> tuple[Stage, ...]:
    """The stages, searched by spans, as they suit a network; those whose `fading` is stated stay.

    Args:
        stages: Of a search.
        open_detail: Spans leave fine detail open: the variation's weight is larger and stays to the
            end, and nothing is polished.
        coupled_pixels: Unknown numbers of an image that batch norm normalizes by itself: in
            training mode, alone in its batch; 0 elsewhere. A trace of noise there moves the inputs
            of layers ten times as far, and noise explains an update before the image does: the
            weight is larger and falls in a straight line, large images are searched on a coarse
            grid first, which holds no such noise, and steps go to the search, not to L-BFGS.
        whole: Each image's own maps are known (`SpanMatching.whole`): a search by these comes
            first, and leaves little to that by all spans.
    """
    asked = [stage for stage in stages if stage.fading is None]
    if whole and asked:
        rest = (stage for stage in stages if stage.match not in BY_SPANS)
        return (*by_whole_maps(asked[0]), *rest)
    if coupled_pixels:
        return _coupled(stages, coupled_pixels, 0.0 if open_detail else 1.0)
    plain = open_detail and any(stage.fading is None for stage in stages)
    factor, longer, fading = (OPEN_VARIATION, OPEN_STEPS, 0.0) if plain else (1.0, 1.0, SPAN_FADING)
    return tuple(
        replace(
            stage,
            fading=fading,
            steps=round(longer * stage.steps),
            total_variation=factor * (stage.total_variation or 0.0),
        )
        if stage.fading is None
        else stage
        for stage in stages
        if not (plain and stage.match == "spans" and stage.optimizer == "lbfgs")
    )


def _coupled(stages: Sequence[Stage], unknowns: int, fading: float) -> tuple[Stage, ...]:
    """Smoother and longer searches, the first of them on coarse grids before the image's own."""
    asked = [stage for stage in stages if stage.fading is None]
    halvings = 0
    while unknowns / 4**halvings > COUPLED_AT:
        halvings += 1
    weight = max(1.0, COUPLED_VARIATION * (unknowns / 4**halvings / COUPLED_AT) ** 1.5)
    choice: list[Stage] = []
    for stage in stages:
        if stage.fading is not None:
            if not (asked and stage.match == "spans" and stage.optimizer == "lbfgs"):
                choice.append(stage)
            continue
        assert isinstance(stage.varies, Pixels)
        for finer in range(halvings + 1) if stage is asked[0] else (halvings,):
            start = stage.varies.start if stage is not asked[0] or not finer else "previous"
            choice.append(
                replace(
                    stage,
                    varies=replace(stage.varies, start=start, coarse=2 ** (halvings - finer)),
                    steps=COUPLED_STEPS * stage.steps,
                    lr=stage.lr / 2**finer,
                    fading=fading,
                    total_variation=weight * 2**finer * (stage.total_variation or 0.0),
                    by_color=stage.by_color or finer > 0,
                )
            )
    return tuple(choice)


# By eight photos of p01 and p02 of OpenPeople, a trained ResNet-18 in training mode: SSIM 0.67
# after 250 steps by whole maps, 0.72 where the first 100 of them are on a coarse grid, which holds
# no noise that could explain maps, and no photo is stuck; 0.77 after 100 more by all spans.
WHOLE_STEPS = (1.0, 1.5, 1.5)
WHOLE_VARIATION = (0.1, 0.1, 0.15)
WHOLE_FADING = (1.0, 2.0, 4.0)
"""On a coarse grid by whole maps, then in pixels, then by all spans: steps and variation, as shares
of those of the search that is asked for, and the power by which the variation's weight falls."""


def by_whole_maps(search: Stage) -> tuple[Stage, ...]:
    """A search by the maps that each image has by itself, then by all spans."""
    coarse, whole, last = (
        replace(
            search,
            steps=max(round(WHOLE_STEPS[k] * search.steps), 1),
            lr=search.lr / 2**k,
            total_variation=WHOLE_VARIATION[k] * (search.total_variation or 0.0),
            fading=WHOLE_FADING[k],
            by_color=k > 0,
            match="spans" if k == 2 else "whole",
        )
        for k in range(3)
    )
    assert isinstance(search.varies, Pixels)
    return (
        replace(coarse, varies=replace(search.varies, coarse=2)),
        replace(whole, varies=Pixels(start="previous")),
        replace(last, varies=Pixels(start="previous")),
    )


def opening(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """A search by spans before that of an attack, of as many steps at most."""
    steps = min(SPAN_STEPS, max(sum(stage.steps for stage in stages) // (1 + SPAN_MENDS), 1))
    return span_stages(steps, SPAN_POLISH * steps // SPAN_STEPS)


def adjust(stages: Sequence[Stage], evidence: Evidence, *, generated: bool) -> tuple[Stage, ...]:
    """The stages, tuned to the evidence, of an attack with a generator if `generated`."""
    usual = usual_variation(evidence.pixels)
    choice = tuple(
        replace(stage, total_variation=usual) if stage.total_variation is None else stage
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
        replace(stage, optimizer="adam") if stage.optimizer == "signed_adam" else stage
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
