"""DLG: deep leakage from gradients (Zhu et al., NeurIPS 2019)."""

from fedaudit.attacks.presets.published import Variant, with_paper_settings
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.pixels import Pixels


@with_paper_settings(steps=600, restarts=1, patience=0)  # of 10 iterations; 300 of 20 in its code
def dlg(
    *, variant: Variant = "strong", steps: int = 80, restarts: int = 5, patience: int = 10
) -> MatchingAttack:
    """Deep leakage from gradients: image and soft label together, L2 distance, L-BFGS.

    Zhu et al. (NeurIPS 2019). Strong on small smooth networks and fragile over seeds, hence
    `restarts`, chosen by the attack's own objective. Needs a head with plain scores. As published
    it computes in single precision, searches every color channel, and starts once.

    Args:
        variant: "strong", or "published": with the paper's settings where none are stated.
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
        precision="auto" if variant == "strong" else "float32",
        reads_gray=variant == "strong",
        restarts=restarts,
    )
