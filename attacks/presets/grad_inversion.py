"""GradInversion: batch-norm statistics and group consistency (Yin et al., CVPR 2021)."""

from fedaudit.attacks.presets.published import STANDARDIZED, Variant, with_paper_settings
from fedaudit.attacks.search.image_priors import MATCHING_COLOR_WEIGHTS, GroupConsistency
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.pixels import Pixels

# A photo each of p01 and p02 at 64 px through the fresh face network (benchmarks/total_variation.py
# --attack grad_inversion --people p01 p02 --photos 1 --weights 0.05 0.2 0.5): 0.36, 0.54, 0.67.
# But through a trained one at 32 px three photos lose 0.1 with 0.3 in place of 0.05.
USUAL_SHARE = 1 / 6
"""Of what the total variation weighs in `gan_inversion`: 0.05 of gray photos at 32 px, as it had at
every size."""


@with_paper_settings(  # in units of the weight of its squared distance, 1e-3
    steps=20_000,
    total_variation=STANDARDIZED * 0.1,
    group=STANDARDIZED**2 * 10.0,
    batch_norm=100.0,
    restarts=8,
)
def grad_inversion(
    *,
    variant: Variant = "strong",
    steps: int = 350,
    lr: float = 0.1,
    total_variation: float | None = None,
    group: float = 0.05,
    batch_norm: float = 0.1,
    restarts: int = 4,
) -> MatchingAttack:
    """GradInversion: L2 distance, batch-norm statistics, agreement between restarts.

    Yin et al. (CVPR 2021): restarts search side by side and are drawn to their mean after
    registration (eq. 11–12). The distance is scaled, so that its weight against the priors does not
    hang on the network; as published it is not. No code of it is public, and its noise on pixels
    and its penalty on their squares are left out.

    Args:
        variant: "strong", or "published": with the paper's settings where none are stated, without
            the proof that images are gray, and with the variation of each channel where "strong"
            takes that of colors apart (`color_variation`).
        steps: Optimization steps.
        lr: Peak learning rate of Adam, in units of the pixel range [0, 1].
        total_variation: Weight of the total variation; None for a sixth of what suits
            `gan_inversion` at the images' size and color (`usual_variation`).
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
                usual_share=USUAL_SHARE,
                color_weights=MATCHING_COLOR_WEIGHTS if variant == "strong" else None,
                group=GroupConsistency(weight=group) if group else None,
            ),
        ),
        distance="scaled_l2" if variant == "strong" else "l2",
        reads_gray=variant == "strong",
        batch_norm=batch_norm,
        restarts=restarts,
    )
