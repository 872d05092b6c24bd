"""iDLG: DLG with the label from the last layer's signs (Zhao et al., 2020)."""

from dataclasses import replace

from fedaudit.attacks.presets.dlg import dlg
from fedaudit.attacks.search.matching_attack import MatchingAttack


def idlg(*, steps: int = 80, restarts: int = 1, patience: int = 10) -> MatchingAttack:
    """DLG with the label from the sign of the last layer's gradient.

    Zhao et al. (2020, arXiv 2001.02610).

    Args:
        steps: L-BFGS steps of up to 10 iterations each.
        restarts: Independent starts.
        patience: Stop when this many steps brought nothing; 0 never.
    """
    soft = dlg(steps=steps, restarts=restarts, patience=patience)
    return replace(soft, labels="inferred")
