"""Inverting gradients: free pixels, cosine distance (Geiping et al., NeurIPS 2020)."""

from dataclasses import replace
from typing import Literal

from fedaudit.attacks.presets.published import STANDARDIZED, Variant, with_paper_settings
from fedaudit.attacks.search.image_priors import MATCHING_COLOR_WEIGHTS
from fedaudit.attacks.search.local_steps import LocalSteps
from fedaudit.attacks.search.matching_attack import MatchingAttack, Precision
from fedaudit.attacks.search.movers.gradient_descent import Schedule
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.surrogate_head import Unknown
from fedaudit.attacks.search.variables.pixels import Pixels

# By photos of p01 and p02 at 64 px through the fresh face network (benchmarks/total_variation.py
# --attack inverting_gradients --people p01 p02 --photos 1 --weights 0.05 0.17 0.5): SSIM 0.16 with
# 0.05, which it had at every size, 0.27, 0.42 with 0.5, which is half, and 0.44 with all. Three of
# ORL at 32 px under noise of the gradient's length: 0.91, 0.96 with half, 0.86 with all.
USUAL_SHARE = 0.5
"""Of what the total variation weighs in `gan_inversion`, which begins with faces."""


@with_paper_settings(
    steps=4800, schedule="step", total_variation=STANDARDIZED * 1e-4, polish=0, precision="float32"
)
def inverting_gradients(
    *,
    variant: Variant = "strong",
    steps: int = 350,
    lr: float = 0.1,
    total_variation: float | None = None,
    schedule: Schedule = "cosine",
    restarts: int = 1,
    distance: Literal["cosine", "l2", "scaled_l2", "layerwise", "masked", "sign"] = "cosine",
    polish: int = 150,
    precision: Precision = "auto",
    local_steps: LocalSteps = "start",
    batch_norm: float = 0.0,
    patience: int = 0,
    unknown: Unknown = "joint",
    seconds: float | None = None,
) -> MatchingAttack:
    """Inverting gradients: free pixels, cosine distance, total variation, signed Adam.

    Geiping et al. (NeurIPS 2020): minimize 1 − cosine(dummy gradient, shared gradient) + total
    variation, with Adam on the sign of the derivative, in the box of valid images. Labels are
    inferred first, in closed form. It uses nothing but the gradient. As published it starts from
    normal noise, searches every color channel, and weighs the total variation as its code does for
    CIFAR-10.

    Args:
        variant: "strong", or "published": with the paper's settings where none are stated, without
            the proof that images are gray, and with the variation of each channel where "strong"
            takes that of colors apart (`color_variation`).
        steps: Optimization steps.
        lr: Peak step size, in units of the pixel range [0, 1].
        total_variation: Weight of the total variation (mean absolute difference of neighbors); None
            for half of what suits `gan_inversion` at the images' size and color
            (`usual_variation`).
        schedule: "cosine", or "step" as published.
        restarts: Independent starts, searched side by side; the one with the least match is kept.
        distance: Between gradients; "cosine" as published.
        polish: L-BFGS steps of 10 iterations at the end, without total variation, on networks
            without non-smooth activations: there the match is exact, and any prior outweighs what
            is left of it.
        precision: Of the computation, as in `MatchingAttack`.
        local_steps: How several local steps are met, likewise.
        batch_norm: Weight of the batch-norm statistics, on networks that have them.
        patience: Stop when this many steps brought nothing; 0 never.
        unknown: How a head that stays on the device is met, likewise.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
    """
    if steps < 1:
        raise ValueError("steps must be at least 1")
    first = Stage(
        varies=Pixels(start="gray" if variant == "strong" else "normal"),
        steps=steps,
        lr=lr,
        optimizer="signed_adam",
        schedule=schedule,
        total_variation=total_variation,
        usual_share=USUAL_SHARE,
        color_weights=MATCHING_COLOR_WEIGHTS if variant == "strong" else None,
        patience=patience,
    )
    last = Stage(
        varies=Pixels(start="previous", clamp=False),
        steps=polish,
        lr=1.0,
        optimizer="lbfgs",
        patience=5,
        smooth_only=True,
    )
    return MatchingAttack(
        stages=(replace(first, keep=1), last) if polish else (first,),
        precision=precision,
        local_steps=local_steps,
        batch_norm=batch_norm,
        distance=distance,
        restarts=restarts,
        unknown=unknown,
        reads_gray=variant == "strong",
        seconds=seconds,
    )
