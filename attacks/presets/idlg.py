"""iDLG: DLG with the label from the last layer's signs (Zhao et al., 2020)."""

from dataclasses import replace

from fedaudit.attacks.presets.dlg import dlg
from fedaudit.attacks.presets.published import Variant, with_paper_settings
from fedaudit.attacks.search.matching_attack import MatchingAttack


@with_paper_settings(steps=600, restarts=1, patience=0)
def idlg(
    *, variant: Variant = "strong", steps: int = 80, restarts: int = 1, patience: int = 10
) -> MatchingAttack:
    """DLG with the label from the sign of the last layer's gradient.

    Zhao et al. (2020, arXiv 2001.02610).

    Args:
        variant: "strong", or "published": with the paper's settings where none are stated.
        steps: L-BFGS steps of up to 10 iterations each.
        restarts: Independent starts.
        patience: Stop when this many steps brought nothing; 0 never.
    """
    soft = dlg(variant=variant, steps=steps, restarts=restarts, patience=patience)
    return replace(soft, labels="inferred")
