"""The stages of a search by spans, as they suit a network, its batch and what was sent."""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.attacks.search.image_priors import COLOR_WEIGHTS
from fedaudit.attacks.search.schedules.grids_in_turn import (
    MEAN_AFTER,
    MIDWAY,
    OF_DRIFT,
    OF_STEPS,
    STARTS,
    WHOLE_MAPS_FIRST,
    grids_in_turn,
)
from fedaudit.attacks.search.schedules.one_photo_batch_norm import held_smooth
from fedaudit.attacks.search.schedules.span_stages import SPAN_FADING
from fedaudit.attacks.search.schedules.waves import (
    OPEN_AT,
    blurred_waves,
    by_waves,
    wave_stage,
    waves_from_noise,
    waves_in_order,
)
from fedaudit.attacks.search.span_matching import SEEN
from fedaudit.attacks.search.stage import BY_SPANS, Stage
from fedaudit.attacks.search.variables.pixels import ANEW, FINER, MENDED, OTHER_NOISE

ANEW_STEPS = 0.6
"""Of a search on a coarse grid where another is stuck, as a share of the steps. Chosen by one photo
of p07 (number 6 of seed 1 in benchmarks/subspace.py): SSIM 0.73, 0.76 by two mendings, 0.98 so."""


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
    blurred: bool = False,
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
        drifted: The update is of a batch's several steps: the true images miss what is spanned,
            and what explains it better is noise.
        single: Of one photo: a search that failed is made once more from other noise, and by waves
            if that fails, too, and from other noise whose quarters are put in order, at last.
        averaged: Of the restarts of a search by each image's own maps the mean goes on.
        followed: The network is known at each step of local training by images nearly right.
        pruned: Some entries of each row are compared: by waves, once. L-BFGS would need slopes that
            are exact.
        blurred: Little but signs is left of a gradient, or a batch's layers lie behind dropout: by
            waves, which lead there from further off.
    """
    asked = [stage for stage in stages if stage.fading is None]
    if blurred and asked and not (followed or pruned):
        others = (stage for stage in stages if stage.match not in BY_SPANS)
        return (*blurred_waves(asked[0], pixels), *others)
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
        return (*waves_from_noise(asked[0], wave_stage(asked[0], pixels)), *later)
    if coupled and asked:
        return held_smooth(stages, asked[0], pixels)
    if open_detail and asked:
        return by_waves(stages, asked[0], pixels)
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
            waves = replace(wave_stage(asked[0], pixels), if_missed=SEEN)
            plain[searches[-1] + 1 : searches[-1] + 1] = (waves, *waves_in_order(waves))
    return tuple(plain)


def restarts_of(stages: Sequence[Stage], asked: int) -> int:
    """How often the stages begin: those of which a mean goes on, more often than was asked for."""
    return STARTS if any(stage.average for stage in stages) else asked


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
    fine = replace(
        search, varies=FINER, lr=search.lr / 2, fading=SPAN_FADING, color_weights=COLOR_WEIGHTS
    )
    return coarse, fine
