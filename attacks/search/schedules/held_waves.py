"""Searches through deep networks in training mode, where early layers alone tell near from far.

Behind batch norm in training mode, inputs of late layers depend on all that an image holds: noise
of a fiftieth of the range moves those of a fresh ResNet-50 by a mean squared sine of 0.2 in its
second stage, and of 0.6 in its third. What explains an update there is noise, unless images vary as
photos do all the time; and batches are found by layers one after another.
"""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.image_priors import FACE_VARIATION, WithinRange
from fedaudit.attacks.search.schedules.waves import wave_stage
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching
from fedaudit.attacks.search.stage import BY_SPANS, Stage
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.variables.pixels import Pixels

# By a photo of p01 at 64 px (and four of p01 and p02), fresh networks in training mode, by scripts
# that were not kept. SSIM after 300 steps through ResNet-50: 0.22 with that weight of the variation
# to the end, 0.82 where it vanishes below what photos have (0.80 to 0.81 with 0.7 to 1.3 times
# that, 0.81 with twice the largest weight); DenseNet-121 0.70 and 0.86. Four through ResNet-50, 500
# steps: 0.18 by steps that begin at 0.5, 0.30 to 0.48 at 0.3, 0.26 at 0.15.
HELD_STEPS, HELD_LR, HELD_VARIATION, HELD_TURNS = 4.5, 0.375, 3.0, 3
"""Steps as a share of those asked for, their size as a share of that of other waves, the largest
weight of the variation likewise, and how often they go on, by half such steps each time."""
HELD_RANGE = 10.0
"""Weight that holds pixels in [0, 1] (`WithinRange`)."""
# As above. RegNetX-400MF: SSIM 0.02 with all layers alike, 0.28 with a rate of 0.4; MobileNetV2,
# pre-trained for 150 steps, 0.06 and 0.48; but ResNet-50, one photo, 0.84 and 0.10. Four photos
# through ResNet-50, 600 steps: 0.11 with all alike, 0.20 to 0.48 by four noises with 0.6; 0.40, and
# 0.68 by as many more, with 0.5.
EARLY_FIRST, EARLY_STEPS = 0.5, 6.0
"""By how much late layers count less while early ones disagree (`SpanMatching.early_first`), and
the steps, whose size falls as a cosine."""
# By a photo of p01: fresh RepVGG-A0 ends at 1e-2 without these, SSIM 0.78, at 0.96 so.
MISSED = 0.05
"""Mean squared sine from which on batches are searched anew, and one photo by early layers first;
one photo by all layers alike from `SEEN` on."""


def with_held_waves(
    stages: Sequence[Stage], asked: Sequence[Stage], spans: SpanMatching
) -> tuple[Stage, ...]:
    """The stages, and searches anew where they miss, before those that polish.

    Behind batch norm in training mode, where the true images meet the spans: what is far from them
    is not found yet. Not where the spans leave images free, as no search could end there.

    Args:
        stages: As they suit the network.
        asked: As they were asked for.
        spans: What layers' inputs span.
    """
    search = next((stage for stage in asked if stage.fading is None), None)
    left = search is None or not isinstance(search.varies, Pixels)
    if search is None or left or not (spans.coupled and spans.exact and spans.decides):
        return tuple(stages)
    single = spans.evidence.count == 1
    until = MISSED if single else SEEN
    anew = _held_waves(search, spans.evidence, EARLY_FIRST, if_missed=MISSED, until=until)
    if single:
        anew = (*_held_waves(search, spans.evidence, if_missed=SEEN, until=SEEN), *anew)
    searches = [n for n, s in enumerate(stages) if s.match in BY_SPANS and s.optimizer == "adam"]
    place = searches[-1] + 1
    return (*stages[:place], *anew, *stages[place:])


def _held_waves(
    search: Stage, evidence: Evidence, early_first: float = 0.0, *, if_missed: float, until: float
) -> tuple[Stage, ...]:
    """A search by waves of images that vary as photos do, which goes on where it ends far off.

    Args:
        search: That was asked for.
        evidence: Of images of that size.
        early_first: By how much late layers count less while early ones disagree.
        if_missed: Made only where images so far are farther than this from the spans.
        until: Goes on where it ends farther than this.
    """
    usual, (_, height, width) = wave_stage(search, evidence.pixels), evidence.shape
    waves = replace(
        usual,
        steps=round(HELD_STEPS * search.steps),
        lr=HELD_LR * usual.lr,
        fading=0.0,
        total_variation=HELD_VARIATION * (search.total_variation or 0.0),
        held_variation=FACE_VARIATION / (height * width) ** 0.25,
        colors_fade=False,
        priors=(WithinRange(HELD_RANGE),),
        early_first=early_first,
        if_missed=if_missed,
    )
    if early_first:
        waves = replace(waves, steps=round(EARLY_STEPS * search.steps), schedule="cosine")
    # From where the search ended, as noise may have come nearer before it.
    further = replace(waves, varies=CosineSpectrum(start="last"), if_missed=until)
    turns = (replace(further, lr=waves.lr / 2**turn) for turn in range(1, HELD_TURNS))
    return (waves, *turns)
