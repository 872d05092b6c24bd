"""A search in turns on coarse and fine grids of pixels, as in multigrid methods."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from fedaudit.attacks.search.image_priors import COLOR_WEIGHTS
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.pixels import Pixels

Turn = tuple[Literal["spans", "whole"], int, float, float, float, float]
# By photos of p01 and p02 of OpenPeople, a trained ResNet-18 in training mode; SSIM of two batches
# of eight, and CPU seconds each. 0.78, 0.82 (46) with the first, second and last alone; 0.82 of the
# first batch with twice their steps (85); 0.86, 0.83 (79) with a coarse grid once more before the
# last, by all spans (a batch of four: 0.81, then 0.91); 0.86, 0.88 (71) as here. A first grid of a
# fourth of the points, or yet another turn, brought nothing.
WHOLE_MAPS_FIRST: tuple[Turn, ...] = (
    ("whole", 2, 1.0, 1.0, 0.1, 1.0),
    ("whole", 1, 1.5, 0.5, 0.1, 2.0),
    ("whole", 2, 1.0, 0.5, 0.1, 2.0),
    ("whole", 1, 1.5, 0.5, 0.1, 2.0),
    ("spans", 2, 1.0, 0.5, 0.15, 2.0),
    ("spans", 1, 1.5, 0.25, 0.15, 4.0),
)
"""What each stage matches, how much coarser its grid is, its steps, step size and variation as
shares of those of the search that is asked for, and the power by which the variation's weight
falls. A coarse grid holds no noise that could explain maps, and what is finer is found anew from
there: as in multigrid methods, grids take turns."""


# By the same two batches (benchmarks/subspace.py, --only "ResNet-18 train" --batch 8 --people p01
# p02 --targets 1): SSIM of the first 0.855 by one search, 0.878 by the mean of three.
STARTS, MEAN_AFTER = 3, 2
"""Searches by each photo's own maps, and after how many turns their mean goes on: where one of them
is wrong is by chance."""


# By sixteen photos of p01 and p02, a trained ResNet-18 in training mode, two epochs of mini-batches
# of eight, layers weighed by what their true images miss: SSIM 0.56 by the first alone, then 0.59;
# 0.54 with twice that variation, falling as a root. The true images are at a distance of 0.019,
# and the search ends at 0.014: so no L-BFGS and no mending, which bring the distance down, follow.
# (benchmarks/subspace.py --only "two epochs" --batch 16 --people p01 p02 --targets 1, with --set
# attacks.search.schedules.grids_in_turn.OF_DRIFT=…; the first of these took the true misfits as
# weights.)
OF_DRIFT: tuple[Turn, ...] = (
    ("spans", 2, 1.0, 1.0, 1.0, 2.0),
    ("spans", 1, 1.0, 0.5, 0.5, 2.0),
)
"""The same for a batch after several steps that drift (`SpanMatching.drifted`)."""


# By the same sixteen photos: SSIM 0.55 after the first two turns (76 CPU s), 0.68 after all (364),
# where `OF_DRIFT` ends at 0.59.
OF_STEPS: tuple[Turn, ...] = (
    ("spans", 2, 1.0, 1.0, 1.0, 2.0),
    ("spans", 1, 0.6, 0.5, 0.5, 2.0),
    ("spans", 2, 1.0, 0.5, 0.5, 2.0),
    ("spans", 1, 1.2, 0.5, 0.3, 2.0),
)
"""The same where local training is followed: in the middle at first, then step by step."""
MIDWAY = 2
"""Turns of these before images are near enough to say who shared a mini-batch."""


def grids_in_turn(
    search: Stage, turns: Sequence[Turn], *, colors_fade: bool = True
) -> tuple[Stage, ...]:
    """The stages that `turns` make of a search, where the colors of faces fade as the variation."""
    assert isinstance(search.varies, Pixels)
    return tuple(
        replace(
            search,
            varies=replace(search.varies, coarse=coarse)
            if number == 0
            else Pixels(start="previous", coarse=coarse),
            steps=max(round(steps * search.steps), 1),
            lr=lr * search.lr,
            total_variation=variation * (search.total_variation or 0.0),
            fading=fading,
            face_colors=(variation / turns[0][4] if colors_fade else 1.0) * search.face_colors,
            colors_fade=colors_fade,
            color_weights=COLOR_WEIGHTS if number else None,
            match=match,
        )
        for number, (match, coarse, steps, lr, variation, fading) in enumerate(turns)
    )
