"""Contrast that layers' inputs leave open: a normalization behind the first layer takes it away."""

from torch import Tensor, cat, tensor

from fedaudit.attacks.search.image_priors import FACE_DEVIATION
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching

CENTERS = (0.5, 0.0)
"""What a network subtracts from images, where that is told by none of its layers."""
STRETCHED = 1.5
"""Contrast of the images by which it is tried whether contrast is seen."""
UNSEEN = 10.0, 1e-6
"""How much farther from the spans, by factor and summand, images may then be."""
TOLD = 0.9, 1.1, 1.002
"""Paler and stronger images, and how much farther both are, by factor, where contrast is told."""
KEPT = 0.005
"""Share of pixels, at either end, that may leave [0, 1]."""


def with_usual_contrast(spans: object, images: Tensor) -> Tensor:
    """Images as they are, or with the contrast of faces where the update does not say theirs.

    A convolution without bias and a group norm behind it give the same maps of an image and of a
    paler one, and gradients of the same directions. The total variation then makes images the paler
    the longer a search takes. `benchmarks/attack_quality.py` measures it on ORL, of which
    `FACE_DEVIATION` knows nothing.

    Args:
        spans: What they were compared with; contrast is open to spans of layers alone.
        images: `[N, C, H, W]` in [0, 1], which explain the update; others stay.
    """
    if not isinstance(spans, SpanMatching):
        return images
    near = spans.distance(images)
    allowed = min(UNSEEN[0] * near + UNSEEN[1], SEEN)
    usual = sum(FACE_DEVIATION) / len(FACE_DEVIATION)
    for center in CENTERS:
        apart = images - center
        if spans.distance(center + STRETCHED * apart) > allowed:
            continue
        paler, stronger, farther = TOLD
        around = (spans.distance(center + factor * apart) for factor in (paler, stronger))
        if min(around) > farther * near:  # weakly, but the search has ended at the contrast sent
            return images
        stretched = []
        for one in apart:
            ends = one.flatten().quantile(tensor([KEPT, 1 - KEPT]).to(one))
            bounds = zip((-center, 1 - center), ends.tolist(), strict=True)
            room = [bound / end for bound, end in bounds if bound * end > 0]
            factor = min([usual / max(float(one.std()), 1e-6), *room])
            stretched.append(center + max(factor, 1.0) * one[None])
        found = cat(stretched).clamp(0, 1)
        return found if spans.distance(found) <= max(allowed, near) else images
    return images
