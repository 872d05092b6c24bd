"""GION: an untrained network draws the images (Jeon et al., NeurIPS 2021)."""

from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.network_weights import UntrainedWeights


def gion(
    *,
    steps: int = 300,
    lr: float = 0.01,
    width: int = 32,
    total_variation: float = 1e-3,
    restarts: int = 1,
) -> MatchingAttack:
    """An untrained network draws the images, its weights are searched: no faces from elsewhere.

    Jeon et al. (NeurIPS 2021, section 4.3), after the deep image prior (Ulyanov et al. 2018).

    Args:
        steps: Optimization steps.
        lr: Peak learning rate of the weights.
        width: Channels of the network's finest scale.
        total_variation: Weight of the total variation.
        restarts: Independent starts.
    """
    return MatchingAttack(
        stages=(
            Stage(
                varies=UntrainedWeights(width=width),
                steps=steps,
                lr=lr,
                total_variation=total_variation,
            ),
        ),
        restarts=restarts,
    )
