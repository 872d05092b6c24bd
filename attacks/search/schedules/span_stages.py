"""The stages of a search by what layers' inputs span, as they suit one photo of a usual network."""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.attacks.search.image_priors import COLOR_WEIGHTS, WithinRange
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.variables.pixels import MENDED, Pixels

# By photos of p01 and p02 of OpenPeople at 64 px, with a ResNet-18 trained on the others: SSIM of
# one went from 0.946 to 0.988 (0.971 with a tenth of the last weight), of a dark one from 0.885 to
# 0.980 with that tenth, in as many seconds. Where images are mended, steps half as long end nearer.
# benchmarks/subspace.py reports on p09 and p10; `--people p01 p02 --set NAME=VALUE` tries others.
SPAN_STEPS, SPAN_MENDS, SPAN_POLISH, SPAN_LR = 100, 1, 14, 0.2
SPAN_VARIATION, SPAN_FADING = 1.0, 2.0
"""Of a search by spans, by Adam and then L-BFGS; the variation's weight falls to 0."""
SPAN_MEMORY = 0.99
"""Of Adam, whose slopes grow smaller by orders within a hundred steps."""
# By photos of p01 and p02, 2026-11-29. Through a fresh iResNet-18 at 112 px: SSIM 0.934 (32.4 dB)
# before polishing, 0.959 (38 dB) when pixels are cut off at 0 and 1 every ten iterations, which
# throws L-BFGS back (its distance rises from 6e-4 to 9e-4 before it falls), 0.989 with a weight of
# 100 in place of that, 0.997 by waves in units to the power of 0.35 or 0.5, 0.986 to that of 1. Two
# through a trained ResNet-18 at 64 px: 39.1 and 33.6 dB by pixels, 39.0 and 33.8 to the power of
# 0.25, 38.3 and 33.2 of 0.5. A weight of 30 to 300 makes no difference, 3 and 3000 are worse.
POLISH_POWER, POLISH_RANGE = 0.35, 100.0
"""Of the units of waves by which L-BFGS polishes, and the weight that holds pixels in [0, 1]."""
TRACE_OF_VARIATION = 1e-3
"""Weight of the total variation while polishing, where the distance is below 1e-3."""


def span_stages(
    steps: int = SPAN_STEPS,
    polish: int = SPAN_POLISH,
    *,
    mends: int = SPAN_MENDS,
    lr: float = SPAN_LR,
    total_variation: float = SPAN_VARIATION,
    fading: float | None = None,
) -> tuple[Stage, ...]:
    """Adam on pixels from noise, again from mended images, then L-BFGS, by what inputs span.

    Nothing is polished where the weight of the variation does not fall (`fading` 0).
    """
    search = Stage(
        varies=Pixels(start="normal"),
        steps=steps,
        lr=lr,
        memory=SPAN_MEMORY,
        total_variation=total_variation,
        fading=fading,
        match="spans",
    )
    again = [
        replace(
            search,
            varies=MENDED,
            lr=lr / 2**mend,
            total_variation=total_variation / 2**mend,
            color_weights=COLOR_WEIGHTS,
        )
        for mend in range(1, mends + 1)
    ]
    last = Stage(
        varies=CosineSpectrum(power=POLISH_POWER),
        steps=polish,
        lr=1.0,
        optimizer="lbfgs",
        total_variation=TRACE_OF_VARIATION,
        color_weights=COLOR_WEIGHTS,
        priors=(WithinRange(POLISH_RANGE),),
        patience=5,
        match="spans",
    )
    return (search, *again, *([last] if polish and fading != 0 else []))


def opening(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """A search by spans before that of an attack, of as many steps at most."""
    steps = min(SPAN_STEPS, max(sum(stage.steps for stage in stages) // (1 + SPAN_MENDS), 1))
    return span_stages(steps, SPAN_POLISH * steps // SPAN_STEPS)


def shown_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """A short search by spans in place of one by these, that shows images coarsely."""
    first = next(stage for stage in stages if stage.match == "spans")
    return (replace(first, varies=Pixels(start="normal", coarse=2), fading=1.0),)
