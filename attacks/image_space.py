"""Attacks that search free pixels: presets of the engine, by the name of their paper."""

from dataclasses import replace
from typing import Literal

from fedaudit.attacks.engine import LocalSteps, MatchingAttack, Precision, Unknown
from fedaudit.attacks.image_priors import GroupConsistency
from fedaudit.attacks.search import Schedule
from fedaudit.attacks.stage import Stage
from fedaudit.attacks.varies import Pixels


def dlg(*, steps: int = 80, restarts: int = 5, patience: int = 10) -> MatchingAttack:
    """Deep leakage from gradients: image and soft label together, L2 distance, L-BFGS.

    Zhu et al. (NeurIPS 2019). Strong on small smooth networks and fragile over seeds, hence
    `restarts`, chosen by the attack's own objective. Needs a head with plain scores.

    Args:
        steps: L-BFGS steps of up to 10 iterations each.
        restarts: Independent starts.
        patience: Stop when this many steps brought nothing; 0 never.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Pixels(start="normal", box=False),
                steps=steps,
                lr=1.0,
                optimizer="lbfgs",
                patience=patience,
            ),
        ),
        distance="l2",
        labels="soft",
        restarts=restarts,
    )


def idlg(*, steps: int = 80, restarts: int = 1, patience: int = 10) -> MatchingAttack:
    """DLG with the label from the sign of the last layer's gradient.

    Zhao et al. (2020, arXiv 2001.02610).

    Args:
        steps: L-BFGS steps of up to 10 iterations each.
        restarts: Independent starts.
        patience: Stop when this many steps brought nothing; 0 never.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Pixels(start="normal", box=False),
                steps=steps,
                lr=1.0,
                optimizer="lbfgs",
                patience=patience,
            ),
        ),
        distance="l2",
        restarts=restarts,
    )


def inverting_gradients(
    *,
    steps: int = 350,
    lr: float = 0.1,
    total_variation: float = 0.05,
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

    Geiping et al. (NeurIPS 2020): minimize 1 − cosine(trial gradient, shared gradient) + total
    variation, with Adam on the sign of the derivative, in the box of valid images. Labels are
    inferred first, in closed form. It uses nothing but the gradient.

    Args:
        steps: Optimization steps.
        lr: Peak step size, in units of the pixel range [0, 1].
        total_variation: Weight of the total variation (mean absolute difference of neighbors).
        schedule: "cosine", or "step" as published.
        restarts: Independent starts, searched side by side; the one with the least match is kept.
        distance: Between gradients; "cosine" as published.
        polish: L-BFGS steps of 10 iterations at the end, without total variation, on networks
            without kinks: there the match is exact, and any prior outweighs what is left of it.
        precision: Of the computation, as in `engine.MatchingAttack`.
        local_steps: How several local steps are met, likewise.
        batch_norm: Weight of the batch-norm statistics, on networks that have them.
        patience: Stop when this many steps brought nothing; 0 never.
        unknown: How a head that stays on the device is met, likewise.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
    """
    if steps < 1:
        raise ValueError("steps must be at least 1")
    first = Stage(
        varies=Pixels(),
        steps=steps,
        lr=lr,
        optimizer="signed_adam",
        schedule=schedule,
        total_variation=total_variation,
        patience=patience,
    )
    last = Stage(
        varies=Pixels(start="previous", box=False),
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
        seconds=seconds,
    )


def grad_inversion(
    *,
    steps: int = 350,
    lr: float = 0.1,
    total_variation: float = 0.05,
    group: float = 0.05,
    batch_norm: float = 0.1,
    restarts: int = 4,
) -> MatchingAttack:
    """GradInversion: L2 distance, batch-norm statistics, agreement between restarts.

    Yin et al. (CVPR 2021): restarts search side by side and are drawn to their mean after
    registration (eq. 11–12). The distance is scaled, so that its weight against the priors does not
    hang on the network.

    Args:
        steps: Optimization steps.
        lr: Peak learning rate of Adam, in units of the pixel range [0, 1].
        total_variation: Weight of the total variation.
        group: Weight of the agreement between restarts.
        batch_norm: Weight of the batch-norm statistics (eq. 8), on networks that have them.
        restarts: How many search side by side.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=Pixels(),
                steps=steps,
                lr=lr,
                total_variation=total_variation,
                group=GroupConsistency(weight=group) if group else None,
            ),
        ),
        distance="scaled_l2",
        batch_norm=batch_norm,
        restarts=restarts,
    )
