"""Stages of a search by what layers' inputs span, as they suit networks and batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from fedaudit.attacks.search.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.image_priors import WithinRange
from fedaudit.attacks.search.span_matching import EXPLAINED, SEEN
from fedaudit.attacks.search.stage import BY_SPANS, Stage
from fedaudit.attacks.search.variables import ANEW, FINER, MENDED, OTHER_NOISE, Pixels

# By photos of p01 and p02 of OpenPeople at 64 px, with a ResNet-18 trained on the others: SSIM of
# one went from 0.946 to 0.988 (0.971 with a tenth of the last weight), of a dark one from 0.885 to
# 0.980 with that tenth, in as many seconds. Where images are mended, steps half as long end nearer.
# benchmarks/subspace.py reports on p09 and p10; `--people p01 p02 --set NAME=VALUE` tries others.
SPAN_STEPS, SPAN_MENDS, SPAN_POLISH, SPAN_LR = 100, 1, 14, 0.2
SPAN_VARIATION, SPAN_FADING = 1.0, 2.0
"""Of a search by spans, by Adam and then L-BFGS; the variation's weight falls to 0."""
ANEW_STEPS = 0.6
"""Of a search on a coarse grid where another is stuck, as a share of the steps. Chosen by one photo
of p07 (number 6 of seed 1 in benchmarks/subspace.py): SSIM 0.73, 0.76 by two mendings, 0.98 so."""
SPAN_MEMORY = 0.99
"""Of Adam, whose slopes grow smaller by orders within a hundred steps."""
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
# By photos of p01 and p02; SSIM before polishing, which brings each to the second figure: 0.89 and
# 0.967 through a pre-trained MobileFaceNet (seed 2), 0.945 and 0.969 through a fresh one, 0.71 and
# 0.74 through a MobileNetV2, 0.79 and 0.966 through an EfficientNet-B0 (64 px). The size of steps
# that suits a network is not known before: with a cosine schedule (400 steps), 0.78, 0.90 and 0.92
# through the first by 0.2, 0.4 and 0.8, but 0.92, 0.83 and 0.73 through the second, 0.72, 0.53 and
# 0.26 through the third. So steps begin large and become small by the same factor each: down to a
# fiftieth, 0.91, 0.85 and 0.61. A smooth search of pixels before that leads where large steps have
# to lead out again (0.32 with 0.1, 0.54 with 0.2).
WAVE_STEPS, WAVE_LR, WAVE_VARIATION = 4.0, 0.8, 1.0
"""Of a search by waves: steps and weight of the variation as shares of those that were asked for,
the first step size where that of pixels is `SPAN_LR`. It is made where spans leave detail open, and
where a search by pixels ends above `SEEN`: p01 through Swin-T 0.33 at 1.2e-2, 0.89 at 4e-3 so,
DenseNet-121 0.82 and 0.96; ConvNeXt-Tiny, where waves end nearer with 0.62 for 0.83, is below."""
# By photos of p01 and p02, 2026-11-29. Through a fresh iResNet-18 at 112 px: SSIM 0.934 (32.4 dB)
# before polishing, 0.959 (38 dB) when pixels are cut off at 0 and 1 every ten iterations, which
# throws L-BFGS back (its distance rises from 6e-4 to 9e-4 before it falls), 0.989 with a weight of
# 100 in place of that, 0.997 by waves in units to the power of 0.35 or 0.5, 0.986 to that of 1. Two
# through a trained ResNet-18 at 64 px: 39.1 and 33.6 dB by pixels, 39.0 and 33.8 to the power of
# 0.25, 38.3 and 33.2 of 0.5. A weight of 30 to 300 makes no difference, 3 and 3000 are worse.
POLISH_POWER, POLISH_RANGE = 0.35, 100.0
"""Of the units of waves by which L-BFGS polishes, and the weight that holds pixels in [0, 1]."""
# By four photos of p01 and p02 through a fresh MobileFaceNet: with 2.5 and less a third of them
# stays at 0.91 to 0.94; 0.98 and more of the others.
OPEN_POLISH = 3.5
"""There, steps of L-BFGS as a share of those asked for."""
# By a photo of p01 at 224 px through a fresh ResNet-50, at the end: SSIM 0.674 (20.6 dB, 345 CPU s)
# by 400 steps that begin as large as at 112 px, with that weight; 0.826 (30.0 dB, 292 s) as here.
OPEN_AT, LARGE_STEPS = 3 * 112 * 112, 3.0
"""Numbers of an image up to which these hold. Of larger ones, steps by waves are so many shares of
those asked for, and as much smaller as sides are larger, the weight of the variation as much more;
L-BFGS makes fewer, but at least those asked for, and nothing begins anew: ten iterations take six
CPU seconds of a ResNet-50 at 224 px."""
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
            by_color=True,
        )
        for mend in range(1, mends + 1)
    ]
    last = Stage(
        varies=CosineSpectrum(power=POLISH_POWER),
        steps=polish,
        lr=1.0,
        optimizer="lbfgs",
        total_variation=TRACE_OF_VARIATION,
        by_color=True,
        priors=(WithinRange(POLISH_RANGE),),
        patience=5,
        match="spans",
    )
    return (search, *again, *([last] if polish and fading != 0 else []))


def suited(
    stages: Sequence[Stage],
    *,
    open_detail: bool,
    pixels: int = 0,
    coupled: bool = False,
    whole: bool = False,
    drifted: bool = False,
    single: bool = False,
    averaged: bool = False,
    followed: bool = False,
    pruned: bool = False,
) -> tuple[Stage, ...]:
    """The stages, searched by spans, as they suit a network; those whose `fading` is stated stay.

    Args:
        stages: Of a search.
        open_detail: Spans leave fine detail open: the search is by waves, coarse before fine.
        pixels: Unknown numbers of an image: large ones are polished less.
        coupled: Batch norm normalizes an image by itself: in training mode, alone in its batch. A
            trace of noise there moves the inputs of layers ten times as far, and noise explains an
            update before the image does: the search is held smoother.
        whole: Each image's own maps are known (`SpanMatching.whole`): a search by these comes
            first, and leaves little to that by all spans.
        drifted: The update is of a batch's several steps, or of signs: the true images miss what is
            spanned, and what explains it better is noise.
        single: Of one photo: a search that failed is made once more from other noise, and by waves
            if that fails, too.
        averaged: Of the restarts of a search by each image's own maps the mean goes on.
        followed: The network is known at each step of local training by images nearly right.
        pruned: Some entries of each row are compared: by waves, once. L-BFGS would need slopes that
            are exact.
    """
    asked = [stage for stage in stages if stage.fading is None]
    if (whole or drifted or followed) and asked:
        rest = (stage for stage in stages if stage.match not in BY_SPANS)
        drift = OF_STEPS if followed else OF_DRIFT
        turns = grids_in_turn(asked[0], WHOLE_MAPS_FIRST if whole else drift, colors_fade=whole)
        if followed:
            by_spans = [n for n, stage in enumerate(turns) if stage.match == "spans"]
            turns = _step_by_step(turns, by_spans[0 if whole else MIDWAY])
        if whole and averaged:
            turns = tuple(replace(s, average=n + 1 == MEAN_AFTER) for n, s in enumerate(turns))
        return (*turns, *rest)
    if pruned and asked:
        later = [stage for stage in stages if stage.match not in BY_SPANS]
        return (*_from_noise(asked[0], _waves(asked[0], pixels)), *later)
    if coupled and asked:
        return _coupled(stages, asked[0], pixels)
    if open_detail and asked:
        return _by_waves(stages, asked[0], pixels)
    plain = [
        replace(stage, fading=SPAN_FADING) if stage.fading is None else stage for stage in stages
    ]
    mended = [place for place, stage in enumerate(plain) if stage.varies == MENDED]
    if asked and mended:
        plain[mended[-1] + 1 : mended[-1] + 1] = _anew(asked[0])
    if asked and single:
        again = replace(asked[0], varies=OTHER_NOISE, fading=SPAN_FADING)
        plain.insert(stages.index(asked[0]) + 1, again)
        searches = [n for n, s in enumerate(plain) if s.match == "spans" and s.optimizer == "adam"]
        if pixels <= OPEN_AT:
            plain.insert(searches[-1] + 1, replace(_waves(asked[0], pixels), if_missed=SEEN))
    return tuple(plain)


def _step_by_step(turns: Sequence[Stage], first: int) -> tuple[Stage, ...]:
    """The turns, local training followed from that one on, by the images of the best restart."""
    return tuple(
        replace(turn, follows=n >= first, keep=1 if n == first - 1 else turn.keep)
        for n, turn in enumerate(turns)
    )


def _anew(search: Stage) -> tuple[Stage, Stage]:
    """A search from other noise, first on a coarse grid, which holds no fine structure to misplace.

    For images that mending leaves as wrong as they were.
    """
    coarse = replace(
        search, varies=ANEW, steps=max(round(ANEW_STEPS * search.steps), 1), fading=1.0
    )
    fine = replace(search, varies=FINER, lr=search.lr / 2, fading=SPAN_FADING, by_color=True)
    return coarse, fine


def _waves(search: Stage, pixels: int) -> Stage:
    """A search by waves from noise, coarse before fine, as long as it takes to lead anywhere."""
    finer = max(pixels / OPEN_AT, 1.0) ** 0.5
    return replace(
        search,
        varies=CosineSpectrum(start="normal"),
        fading=SPAN_FADING,
        steps=round((WAVE_STEPS if finer == 1 else LARGE_STEPS) * search.steps),
        lr=WAVE_LR / SPAN_LR * search.lr / finer,
        schedule="exponential",
        total_variation=WAVE_VARIATION * (search.total_variation or 0.0) * finer,
        colors_fade=True,
        by_color=True,
        priors=(WithinRange(),),
    )


def _from_noise(search: Stage, waves: Stage) -> tuple[Stage, ...]:
    """The waves; where something else draws images first, such as a generator, after its turn."""
    goes_on = replace(waves, varies=CosineSpectrum())
    if not isinstance(search.varies, Pixels):
        return replace(search, fading=SPAN_FADING), goes_on
    return (goes_on if search.varies.start == "previous" else waves,)


def _by_waves(stages: Sequence[Stage], search: Stage, pixels: int) -> tuple[Stage, ...]:
    """A search by waves (`CosineSpectrum`) from noise; from other noise where that was in vain."""
    waves = _waves(search, pixels)
    begin = list(stages).index(search)
    later = [stage for stage in stages[begin:] if stage.fading is not None]
    share = max(OPEN_POLISH * min(1.0, OPEN_AT / max(pixels, 1)), 1.0)
    polish = [
        replace(stage, steps=round(share * stage.steps))
        for stage in later
        if stage.match == "spans"
    ]
    rest = (stage for stage in later if stage.match != "spans")
    again: tuple[Stage, ...] = ()
    if pixels <= OPEN_AT:
        last = CosineSpectrum(start="last", power=POLISH_POWER)
        anew = replace(waves, if_missed=EXPLAINED)
        again = (anew, *(replace(one, varies=last) for one in polish))
    return (*stages[:begin], *_from_noise(search, waves), *polish, *again, *rest)


def _coupled(stages: Sequence[Stage], search: Stage, pixels: int) -> tuple[Stage, ...]:
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
        waves = _waves(replace(search, total_variation=weight), pixels)
        return (*stages[:begin], *_from_noise(search, waves), *later)
    weight *= max(COUPLED_VARIATION * size**1.5, 1.0)
    smooth = replace(search, steps=COUPLED_STEPS * search.steps, fading=1.0, total_variation=weight)
    less = grids_in_turn(replace(search, total_variation=weight), COUPLED_TURNS)
    return (*stages[:begin], smooth, *map(_goes_on, less), *later)


def _goes_on(turn: Stage) -> Stage:
    """A turn that is not the first: from the images so far, and colors apart."""
    assert isinstance(turn.varies, Pixels)
    return replace(turn, varies=replace(turn.varies, start="previous"), by_color=True)


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


# By the same two batches, with a script that was not kept: SSIM of the first 0.855 by one search;
# 0.872 by the mean of two after the fourth turn, 0.878 by the mean of three after the second.
STARTS, MEAN_AFTER = 3, 2
"""Searches by each photo's own maps, and after how many turns their mean goes on: where one of them
is wrong is by chance."""


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


# By sixteen photos of p01 and p02, a trained ResNet-18 in training mode, two epochs of mini-batches
# of eight, layers weighed by what their true images miss: SSIM 0.56 by the first alone, then 0.59;
# 0.54 with twice that variation, falling as a root. The true images are at a distance of 0.019,
# and the search ends at 0.014: so no L-BFGS and no mending, which bring the distance down, follow.
# (benchmarks/subspace.py --only "two epochs" --batch 16 --people p01 p02 --targets 1, with --set
# attacks.search.span_schedules.OF_DRIFT=…; the first of these took the true misfits as weights.)
OF_DRIFT: tuple[Turn, ...] = (
    ("spans", 2, 1.0, 1.0, 1.0, 2.0),
    ("spans", 1, 1.0, 0.5, 0.5, 2.0),
)
"""The same for a batch after several steps that drift, and for signs (`SpanMatching.drifted`)."""


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
            by_color=number > 0,
            match=match,
        )
        for number, (match, coarse, steps, lr, variation, fading) in enumerate(turns)
    )


def opening(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """A search by spans before that of an attack, of as many steps at most."""
    steps = min(SPAN_STEPS, max(sum(stage.steps for stage in stages) // (1 + SPAN_MENDS), 1))
    return span_stages(steps, SPAN_POLISH * steps // SPAN_STEPS)


def shown_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """A short search by spans in place of one by these, that shows images coarsely."""
    first = next(stage for stage in stages if stage.match == "spans")
    return (replace(first, varies=Pixels(start="normal", coarse=2), fading=1.0),)
