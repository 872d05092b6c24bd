"""How the stages of an attack are adjusted to what is known of the update."""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.search.map_matching import goal_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables import Latent, Pixels

# Set by hand; what they reach is measured by benchmarks/mixture_bound.py.
NOISE_LR = 0.05
"""Peak step size in pixels of an image that looks like noise."""
NOISE_SPREAD = 0.25
"""Half the width of the noise that its search starts from."""


def adjusted(stages: Sequence[Stage], matching: Matching, *, generated: bool) -> tuple[Stage, ...]:
    """The stages as they do best on the evidence.

    Args:
        stages: Of the attack.
        matching: Says by what the update is explained.
        generated: Whether the attack has a generator of faces.
    """
    evidence = matching.evidence
    chosen = from_gray(stages) if matching.loss == "spans" else tuple(stages)
    for special in evidence.adaptation.special:
        if generated and special.looks_like_noise(evidence):
            chosen = of_noise(stages, by_maps=goal_of(evidence) is not None)
        known = special.equations(evidence)
        if known is not None:
            chosen = within_range(chosen, known, evidence)
    return chosen


def from_gray(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages as they do best on spans, where the start matters and the slope is exact.

    What is wrong in a generated face holds on to it longer than noise does: an attack that leaves
    its generator in the end never enters it, and gives its steps to pixels. One that stays inside,
    as published, does so here. Adam's own steps end nearer than those of its sign.
    """
    free = [stage for stage in stages if isinstance(stage.varies, Pixels)]
    if free and free[0] is not stages[0]:
        saved = sum(stage.steps for stage in stages[: stages.index(free[0])])
        free[0] = replace(free[0], varies=Pixels(), steps=free[0].steps + saved)
    chosen = free or stages
    return tuple(
        replace(stage, optimizer="adam") if stage.optimizer == "signed_adam" else stage
        for stage in chosen
    )


def of_noise(stages: Sequence[Stage], *, by_maps: bool) -> tuple[Stage, ...]:
    """The stages for an image that looks like noise, as InstaHide's masks leave them.

    No generator draws it and no prior knows it. Its pixels are free from the start, first by its
    known maps alone, which cost the least, then by the update; with all steps, and twice as many.

    Args:
        stages: Of an attack on photos.
        by_maps: Whether its maps are known.
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
    kept = [stage for stage in stages if isinstance(stage.varies, Latent)]
    if not kept or equations >= reading.pixels:
        return tuple(stages)
    left = sum(stage.steps for stage in stages) - sum(stage.steps for stage in kept)
    return (*kept[:-1], replace(kept[-1], steps=kept[-1].steps + left))
