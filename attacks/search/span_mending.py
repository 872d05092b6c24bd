"""Redraw regions of dummy images that contradict the update, where a search by spans is stuck.

A search ends in a local minimum where some fine structure lies a step of a convolution beside its
place. The distance tells that something is wrong, each single patch tells where: its part outside
of what the layer's patches span.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.search.span_matching import SEEN, SpanMatching

# By photos of p01 and p02 of OpenPeople; benchmarks/subspace.py reports on p09 and p10.
WRONG = (2.0, 6.0)
"""Misfit, in units of the median place, from which a place is drawn anew in part, and in whole."""
NOISE = 0.1
"""Deviation of what is drawn, around the mean color nearby."""
HOPELESS = 0.05
"""Mean squared sine above which no place is right: of noise in the update, or a failed search."""
BURIED = 0.4
"""Mean squared sine above which one photo is not searched from other noise, or polished, either: a
search of pixels through a trained ResNet-18 at 112 px ends at 0.1 (p09), and waves from there at
1e-4. DP-SGD with a multiplier of 1 leaves 0.65, and a search that failed by its start 0.2 (a photo
of ORL, the house's network after 24 rounds, four steps: `leakage_over_training.py --swap --seed 1
--local-steps 4`)."""
ANEW_BELOW = 0.005
"""Mean squared sine above which images that mending did not help are not searched anew either: the
photo by which that was added ended at 0.0017; farther off, noise or too few equations are why."""
CELLS = 8
"""Means are of as many cells along each side of an image."""


def is_worth_mending(spans: SpanMatching, images: Tensor) -> bool:
    """Whether images `[N, C, H, W]` are wrong in places, rather than nearly right or all wrong."""
    return SEEN < spans.distance(images) < HOPELESS


def misfit(spans: SpanMatching, images: Tensor) -> Tensor | None:
    """How much of its patches at each place lies outside of what they must be in.

    Args:
        spans: Of the layers.
        images: `[N, C, H, W]`.

    Returns:
        `[N, 1, H, W]` in units of the median; None where no layer's patches are spanned as a whole.
    """
    count, (height, width) = len(images), images.shape[2:]
    total = 0 * images[:, :1]
    reader = spans.evidence.reader
    names = {span.name for span in spans.spans}
    patches_of = [s for s in spans.evidence.spans if s.name in names]  # also where maps are known
    whole = [s for s in patches_of if s.whole and len(s.basis) == 1]
    with torch.no_grad():
        inputs = reader.inputs([s.name for s in whole], images) if whole else {}
        for span in whole:
            missing = count * span.positions - int((span.weights > 0).sum())
            rows = round((span.positions * height / width) ** 0.5)
            layer = inputs[span.name][0][0]
            if missing > 1 or not isinstance(layer, nn.Conv2d) or span.positions % max(rows, 1):
                continue
            patches = span.rows(inputs[span.name])[0].double()
            if missing:  # batch norm in training mode: only differences of patches are spanned
                patches = patches - patches.mean(0)
            basis = span.basis[0, span.weights[0] > 0]
            left = (patches - (patches @ basis.mT) @ basis).square().sum(1)
            share = (left / patches.square().sum(1).mean()).view(count, 1, rows, -1).to(images)
            total = total + F.interpolate(share, (height, width), mode="bilinear")
    middle = total.median()
    return total / middle if middle > 0 else None


def mend(spans: SpanMatching, images: Tensor, generator: torch.Generator) -> Tensor:
    """Images `[N, C, H, W]` with fresh noise in the regions that contradict the spans."""
    wrong = misfit(spans, images)
    if wrong is None:
        return images
    low, high = WRONG
    share = ((wrong - low) / (high - low)).clamp(0, 1)
    size = images.shape[2:]
    coarse = F.interpolate(images, [min(CELLS, n) for n in size], mode="area")
    near = F.interpolate(coarse, tuple(size), mode="bilinear")
    noise = torch.randn(images.shape, generator=generator).to(images)
    return ((1 - share) * images + share * (near + NOISE * noise)).clamp(0, 1)
