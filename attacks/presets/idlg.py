"""iDLG: DLG with the label from the last layer's signs (Zhao et al., 2020)."""

from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables import Pixels


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
                varies=Pixels(start="normal", clamp=False),
                steps=steps,
                lr=1.0,
                optimizer="lbfgs",
                patience=patience,
            ),
        ),
        distance="l2",
        restarts=restarts,
    )
