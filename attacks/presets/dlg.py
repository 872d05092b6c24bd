"""DLG: deep leakage from gradients (Zhu et al., NeurIPS 2019)."""

from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables import Pixels


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
                varies=Pixels(start="normal", clamp=False),
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
