"""Subspace matching: images whose layer inputs span what every weight gradient is made of."""

from fedaudit.attacks.search.image_priors import FACE_COLORS
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.schedules.span_stages import (
    SPAN_LR,
    SPAN_MENDS,
    SPAN_POLISH,
    SPAN_STEPS,
    SPAN_VARIATION,
    span_stages,
)

COMPLETE_STEPS = 30
"""With eight photos of p01 and p02 through a trained ResNet-18, gradients of its third stage need
some twenty."""


def subspace_matching(
    *,
    steps: int = SPAN_STEPS,
    mends: int = SPAN_MENDS,
    lr: float = SPAN_LR,
    total_variation: float = SPAN_VARIATION,
    fading: float | None = None,
    polish: int = SPAN_POLISH,
    face_colors: float = FACE_COLORS,
    complete_steps: int = COMPLETE_STEPS,
    restarts: int = 1,
    layers: tuple[str, ...] = (),
    seconds: float | None = None,
) -> MatchingAttack:
    """Search pixels whose inputs to every layer span the rows of its weight gradient.

    No label, no head, no loss, no second derivative: a step is one forward and one backward pass,
    and training the network makes it no harder. Where ten layers or more hold ten equations or more
    an unknown pixel, a step of Adam goes down every other layer's distance, in turn, for less time:
    half of the spans lead to the same images (`search.span_matching.are_many`). After the idea by
    which Petrov et al. (NeurIPS 2024, "DAGER") find the tokens of a language model, here for
    patches of convolutions and tokens of any network (`evidence.layer_spans`). Labels are read off
    the head's gradient at the end, with the images at hand, where that was shared; with both,
    contrast and brightness off the whole gradient (`color_fit`). In which order the images of a
    batch come out is not known.

    Of a batch whose photos' own maps come out in closed form (`evidence.unmixed_maps`), five times
    the steps go to a search by these, on a coarse grid and the images' own in turn, and two and a
    half times the steps to one by all spans; nothing is mended or polished. Of mini-batches of
    SGD, whose settings are known, images that are nearly right say who shared a mini-batch and
    where the weights were (`mini_batches`); the search goes on step by step. Where photos are
    changed at random in each epoch, every view of them is searched for (`augmented_views`). Of a
    pruned update, or one step of Adam, whole gradients of layers are looked for first that follow
    from the numbers that are known (`completion`). Where these are too few, the entries that each
    row of a pruned one kept are compared (`pruned_spans`), by waves, in four times the steps, and
    nothing is mended or polished.

    Args:
        steps: Steps of Adam, from noise; and again after each mending.
        mends: How often, at most, what contradicts the update in places is drawn anew there, and
            searched on; what is as wrong thereafter is searched once more from other noise, on a
            coarse grid first, and one photo by waves at last; if need be twice, the second time
            with its quarters in the order that is nearest (`block_order`). Images that explain the
            update already are left alone, like those of which nothing is right.
        lr: Peak step size, in units of the pixel range [0, 1]; falls as a cosine.
        total_variation: Weight of the total variation at the start.
        fading: Power of the share of steps left by which that weight falls, to 0. With 0 it stays,
            and nothing is polished. None takes 2. Where the spans are few for so many pixels
            (MobileFaceNet), four times the steps go by waves in place of pixels, the coarse ones
            first (`CosineSpectrum`), by sizes that begin four times as large and fall by the same
            factor each, and more to L-BFGS; all of that once more, from other noise, where it ends
            far from the spans. For one photo behind batch norm in training mode None takes 1, a
            larger weight, twice the steps, and coarse grids before the image's own where it is
            large; then grids take turns, less and less smooth, and what is rougher must explain
            more to be kept; what `polish` says ends it, without a prior.
        polish: L-BFGS steps of 10 iterations at the end, by waves.
        face_colors: Weight of the prior that draws the mean and deviation of a batch's colors to
            those of faces, where batch norm in training mode hides them; their contrast is then
            taken so that they have the highlights of faces. 0 for images of anything else.
        complete_steps: Steps of Gauss–Newton a layer, at most, by which gradients are completed of
            which one step of Adam (`adam_magnitudes`) or pruning left some numbers, before images
            are searched for by these; 0 leaves it at those, as `seconds` and `layers` do.
        restarts: Independent starts, one after the other; the one with the least distance is kept.
        layers: Only weights whose names start with one of these; () takes all.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
    """
    if steps < 1:
        raise ValueError("steps must be at least 1")
    if complete_steps < 0:
        raise ValueError("complete_steps must be at least 0")
    return MatchingAttack(
        stages=span_stages(
            steps, polish, mends=mends, lr=lr, total_variation=total_variation, fading=fading
        ),
        match="spans",
        layers=layers,
        face_colors=face_colors,
        complete_steps=complete_steps,
        restarts=restarts,
        seconds=seconds,
    )
