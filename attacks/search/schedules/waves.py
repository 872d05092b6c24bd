"""Searches that vary waves in place of pixels, for networks whose spans leave fine detail open."""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.attacks.search.image_priors import COLOR_WEIGHTS, WithinRange
from fedaudit.attacks.search.schedules.span_stages import POLISH_POWER, SPAN_FADING, SPAN_LR
from fedaudit.attacks.search.span_matching import EXPLAINED
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.cosine_spectrum import CosineSpectrum
from fedaudit.attacks.search.variables.pixels import Pixels

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


# By a photo of p01 through a fresh Swin-T at 64 px, three noises: after 60 of 400 steps the nearest
# of 24 orders is that of the photo (`block_order`). After 390, one is at 1.9e-2 in a wrong order,
# all others at 4.1e-2 and more: what is fine has come to fit it. SSIM so 0.25; in order 0.94.
# Of nine noises before that photo and nine before one of p02, five are in a wrong order after 60
# steps, and two after they were put in the nearest once more after 120 (docs/benchmarks/waves.md).
SKETCHED, SKETCH_LR = 0.15, 0.45
"""Share of the steps of a search by waves after which quarters are put in order, and the size of
these steps, and of the first thereafter, as a share: what steps that fall have come to by then."""


# By photos of p01 and p02 through ResNet-18 at 64 px, one step of Adam; SSIM by grids of pixels in
# turn (`OF_DRIFT`), by waves as they are, and so: one through a fresh network in training mode
# 0.31, 0.74, 0.72 (two steps 0.41, 0.75), four through it 0.17, 0.40, 0.56 by two searches; one
# through a trained one 0.84, 0.81, 0.85 (evaluation mode 0.80, 0.77, 0.81), four 0.52, 0.78, 0.79,
# eight 0.60 and 0.70 with half the variation. Eight through timm's ResNet-18, trained so, with
# stochastic depth of 0.1 and dropout of 0.2: 0.35 by stages of pixels, 0.59 by waves as they are
# and L-BFGS, in 300 CPU s, 0.72 so, in 60.
BLURRED_LR, BLURRED_VARIATION, BLURRED_MISSED, BLURRED_TURNS = 0.5, 2.0, 0.19, 3
"""Of signs, and behind dropout, the size of steps and weight of the variation as shares of these;
the mean squared sine above which waves go on, by half such steps each time, and how often at most.
The true images of these lines have 0.04 to 0.18, and noise explains the update better, so that
colors are drawn to those of faces to the end."""


def wave_stage(search: Stage, pixels: int) -> Stage:
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
        color_weights=COLOR_WEIGHTS,
        priors=(WithinRange(),),
    )


def blurred_waves(search: Stage, pixels: int) -> tuple[Stage, ...]:
    """A search by waves of what true images miss by far; longer where it ends further off."""
    usual = wave_stage(search, pixels)
    waves = replace(
        usual,
        lr=BLURRED_LR * usual.lr,
        total_variation=BLURRED_VARIATION * (usual.total_variation or 0.0),
        colors_fade=False,
    )
    further = replace(waves, varies=CosineSpectrum(), if_missed=BLURRED_MISSED)
    turns = (replace(further, lr=waves.lr / 2**turn) for turn in range(1, BLURRED_TURNS))
    return (*waves_from_noise(search, waves), *turns)


def waves_in_order(waves: Stage) -> tuple[Stage, Stage, Stage]:
    """The same from other noise, whose quarters are put in order once they show what they hold.

    And once more when they show more.
    """
    sketch = replace(
        waves,
        steps=max(round(SKETCHED * waves.steps), 1),
        lr=SKETCH_LR * waves.lr,
        schedule="constant",
        fading=0.0,
    )
    in_order = CosineSpectrum(start="reordered")
    goes_on = replace(
        waves,
        varies=in_order,
        steps=max(waves.steps - 2 * sketch.steps, 1),
        lr=SKETCH_LR * waves.lr,
    )
    return sketch, replace(sketch, varies=in_order), goes_on


def waves_from_noise(search: Stage, waves: Stage) -> tuple[Stage, ...]:
    """The waves; where something else draws images first, such as a generator, after its turn."""
    goes_on = replace(waves, varies=CosineSpectrum())
    if not isinstance(search.varies, Pixels):
        return replace(search, fading=SPAN_FADING), goes_on
    return (goes_on if search.varies.start == "previous" else waves,)


def by_waves(stages: Sequence[Stage], search: Stage, pixels: int) -> tuple[Stage, ...]:
    """A search by waves (`CosineSpectrum`) from noise; from other noise where that was in vain."""
    waves = wave_stage(search, pixels)
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
    return (*stages[:begin], *waves_from_noise(search, waves), *polish, *again, *rest)
