"""Subspace matching: images whose layer inputs span what every weight gradient is made of."""

from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables import Pixels

# Like the default of `total_variation` by photos of p01 and p02 of OpenPeople at 64 px, with a
# ResNet-18 trained on the others: SSIM of two photos 0.94 and 0.85 with a weight of 1, 0.89 and
# 0.83 with 0.3; of one 0.73 with 2. With `steps` 200 and `polish` 4, a dark photo that stayed below
# 0.82 came to 0.89, one at 0.85 to 0.92. benchmarks/subspace.py reports on p09 and p10.
TRACE_OF_VARIATION = 5e-7
"""Weight of the total variation while polishing, where the distance is below 1e-3."""


def subspace_matching(
    *,
    steps: int = 150,
    lr: float = 0.2,
    total_variation: float = 1.0,
    fading: float = 2.0,
    polish: int = 8,
    face_colors: float = 0.3,
    restarts: int = 1,
    layers: tuple[str, ...] = (),
    seconds: float | None = None,
) -> MatchingAttack:
    """Search pixels whose inputs to every layer span the rows of its weight gradient.

    No label, no head, no loss, no second derivative: a step is one forward and one backward pass,
    and training the network makes it no harder. After the idea by which Petrov et al. (NeurIPS
    2024, "DAGER") find the tokens of a language model, here for patches of convolutions and tokens
    of any network (`evidence.layer_spans`). Labels are read off the head's gradient at the end,
    with the images at hand, where that was shared. In which order the images of a batch come out is
    not known.

    Args:
        steps: Steps of Adam, from gray.
        lr: Peak step size, in units of the pixel range [0, 1]; falls as a cosine.
        total_variation: Weight of the total variation at the start.
        fading: Power of the share of steps left by which that weight falls, to 0. With 0 it stays,
            and nothing is polished: for networks whose spans leave fine detail open, such as
            MobileFaceNet, where it is the difference between noise and a face.
        polish: L-BFGS steps of 10 iterations at the end.
        face_colors: Weight of the prior that draws the mean and deviation of a batch's colors to
            those of faces, where batch norm in training mode hides them; 0 leaves them open.
        restarts: Independent starts, one after the other; the one with the least distance is kept.
        layers: Only weights whose names start with one of these; () takes all.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
    """
    if steps < 1:
        raise ValueError("steps must be at least 1")
    search = Stage(
        varies=Pixels(start="normal"),
        steps=steps,
        lr=lr,
        total_variation=total_variation,
        fading=fading,
    )
    last = Stage(
        varies=Pixels(start="previous"),
        steps=polish,
        lr=1.0,
        optimizer="lbfgs",
        total_variation=TRACE_OF_VARIATION,
        patience=5,
    )
    return MatchingAttack(
        stages=(search, last) if polish and fading else (search,),
        match="spans",
        layers=tuple(layers),
        face_colors=face_colors,
        restarts=restarts,
        seconds=seconds,
    )
