"""A search for one photo behind batch norm in training mode, which normalizes it by itself."""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.attacks.search.image_priors import COLOR_WEIGHTS
from fedaudit.attacks.search.schedules.grids_in_turn import Turn, grids_in_turn
from fedaudit.attacks.search.schedules.waves import OPEN_AT, wave_stage, waves_from_noise
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.pixels import Pixels

# By a photo of p01 of OpenPeople through a fresh ResNet-18 (benchmarks/deployed_networks.py with
# --training reports on p09) at 64 px: SSIM 0.71 with 1 (falling as a square, then L-BFGS), 0.91
# with 5, 0.89 with 8, 0.63 with 20. A batch of four ends at a distance of 0.09 with 1, 0.20 with 8:
# it is left as it is.
COUPLED_VARIATION, COUPLED_AT, COUPLED_STEPS = 6.0, 3 * 64 * 64, 2
"""Factor of that weight, at so many unknown numbers of an image, and of the steps, for one photo
behind batch norm in training mode; there is less of it for fewer numbers."""
# By photos of p01 and p02 through a ResNet-18 at 112 px: fresh 0.80 and 0.69 (65 CPU s) by pixels
# on a coarse grid and then in turns on the whole one; by waves the first 0.23 with 1, 0.72 with 4,
# 0.86 with 16, 0.79 with 32, the second 0.79 with 11 and with 16; pre-trained for 20 steps 0.74,
# then 0.90 with 16 (47 s). What keeps its weight longer (power 4) loses the second (0.73). At 64 px
# waves bring two fresh from 0.95 and 0.94 to 0.98 and 0.95 with 3, but lose one of four photos
# through a trained network (0.90 with 1.7 to 8, 0.96 with 1, 0.98 and more by pixels).
COUPLED_WAVES, COUPLED_GROWTH = 3.0, 1.25
"""The same of a search by waves, which larger images take, and the power of those numbers by which
it grows: with sides to the power of 2.5."""
# By photos of p01, p02, p05 to p08 in training mode, ResNet-18, 64 px. Two of p01 and p02 through
# a trained one: SSIM 0.88 and 0.80 (14 CPU s) after the search and its mending; with turns on the
# whole grid, less and less smooth, but drawn to the colors of faces as much as at first, 0.98 and
# 0.95 (23, with a coarse grid among them, which brings nothing any more); colors fading with the
# variation, 0.986 and 0.976, then polished by waves 0.989 and 0.982 (22). Twelve photos: 0.984.
# Pixels in place of waves are polished into noise (0.976 to 0.84, at a third of the distance).
COUPLED_TURNS: tuple[Turn, ...] = (
    ("spans", 1, 1.0, 0.5, 0.25, 2.0),
    ("spans", 1, 1.0, 0.5, 0.05, 2.0),
    ("spans", 1, 1.5, 0.5, 0.005, 2.0),
)
"""The same for one photo behind batch norm in training mode, once a smooth search is done; the
variation as a share of that larger weight."""


def held_smooth(stages: Sequence[Stage], search: Stage, pixels: int) -> tuple[Stage, ...]:
    """A search that is held smoother, and polished without a prior; nothing is mended.

    Small images by pixels, in turns less and less smooth; others by waves.
    """
    begin, weight = list(stages).index(search), search.total_variation or 0.0
    later = [
        replace(stage, total_variation=0.0, face_colors=0.0) if stage.match == "spans" else stage
        for stage in stages[begin:]
        if stage.fading is not None
    ]
    size = min(pixels, OPEN_AT) / COUPLED_AT
    if size > 1 or not isinstance(search.varies, Pixels):
        weight *= max(COUPLED_WAVES * size**COUPLED_GROWTH, 1.0)
        waves = wave_stage(replace(search, total_variation=weight), pixels)
        return (*stages[:begin], *waves_from_noise(search, waves), *later)
    weight *= max(COUPLED_VARIATION * size**1.5, 1.0)
    smooth = replace(search, steps=COUPLED_STEPS * search.steps, fading=1.0, total_variation=weight)
    less = grids_in_turn(replace(search, total_variation=weight), COUPLED_TURNS)
    return (*stages[:begin], smooth, *map(_goes_on, less), *later)


def _goes_on(turn: Stage) -> Stage:
    """A turn that is not the first: from the images so far, and colors apart."""
    assert isinstance(turn.varies, Pixels)
    return replace(turn, varies=replace(turn.varies, start="previous"), color_weights=COLOR_WEIGHTS)
