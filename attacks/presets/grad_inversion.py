"""GradInversion: batch-norm statistics and group consistency (Yin et al., CVPR 2021)."""

from fedaudit.attacks.search.image_priors import GroupConsistency
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables import Pixels


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
