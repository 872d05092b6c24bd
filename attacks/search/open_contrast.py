"""Contrast that layers' inputs leave open: a normalization behind the first layer takes it away."""

import torch
from torch import Tensor

from fedaudit.attacks.search.image_priors import FACE_DEVIATION, exposure
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching

CENTERS = (0.5, 0.0)
"""What a network subtracts from images, where that is told by none of its layers."""
STRETCHED = 1.5
"""Contrast of the images by which it is tried whether contrast is seen."""
UNSEEN, AS_FAR = (10.0, 1e-6), 1.01
"""How much farther from the spans, by factor and summand, images may then be where the update is
explained, and by what factor, either way, where it is not, as after several local steps."""
TOLD = 0.9, 1.1, 1.002
"""Paler and stronger images, and how much farther both are, by factor, where contrast is told."""
KEPT = 0.005, 0.0
"""Shares of pixels, at either end, that may leave [0, 1]; the second where that is seen."""
COLORS = 3
"""Channels of photos that may be given highlights; those of gray ones tell the contrast no better
than their deviation does (ORL: 16 and 18 %; benchmarks/face_contrast.py)."""
PALE = 0.75
"""Share of the contrast of faces from which an image stays as it is: photos differ by 18 %, and a
search that ends soon has kept what contrast there was. By 36 photos of ORL through the house's two
networks, on which 0.6 to 0.8 are as good, 0.85 and more cost the fresh one 4 dB
(benchmarks/attack_quality.py)."""


def with_usual_contrast(spans: object, images: Tensor, *, of_faces: bool = False) -> Tensor:
    """Images as they are, or with the contrast of faces where the update does not say theirs.

    A convolution without bias and a group norm behind it give the same maps of an image and of a
    paler one, and gradients of the same directions. The total variation then makes images the paler
    the longer a search takes. `benchmarks/attack_quality.py` measures it on ORL, of which
    `FACE_DEVIATION` knows nothing.

    Args:
        spans: What they were compared with; contrast is open to spans of layers alone.
        images: `[N, C, H, W]` in [0, 1], which are near the update; others stay.
        of_faces: Color photos are given the highlights of faces, each by itself, however pale.
    """
    if not isinstance(spans, SpanMatching):
        return images
    near, (least, allowed) = spans.distance(images), _bounds(spans, images)
    for center in CENTERS:
        apart = images - center
        if not least <= spans.distance(center + STRETCHED * apart) <= allowed:
            continue
        paler, stronger, farther = TOLD
        around = (spans.distance(center + factor * apart) for factor in (paler, stronger))
        if min(around) > farther * near:  # weakly, but the search has ended at the contrast sent
            return images
        if of_faces and images.shape[1] == COLORS and not spans.evidence.grayscale:
            found = _exposed(apart, center)
            if spans.distance(found) <= allowed:
                return found
        for kept in KEPT:
            found = _stretched(apart, center, kept)
            if spans.distance(found) <= allowed:
                return found
        return images
    return images


def with_usual_exposure(spans: SpanMatching | None, images: Tensor) -> Tensor:
    """A batch of faces with the highlights of others, where the update does not say its contrast.

    Batch norm in training mode hides that of a whole batch, but for its ε.

    Args:
        spans: What the update says of layers' inputs.
        images: `[N, C, H, W]` in [0, 1]; as they are where that would be farther from the spans.
    """
    if spans is None:
        return images
    least, allowed = _bounds(spans, images)
    for center in CENTERS:
        apart = images - center
        if least <= spans.distance(center + STRETCHED * apart) <= allowed:
            found = (center + exposure(images, center) * apart).clamp(0, 1)
            return found if spans.distance(found) <= allowed else images
    return images


def _bounds(spans: SpanMatching, images: Tensor) -> tuple[float, float]:
    """The distances at which images of another contrast are as near to the update as these."""
    near = spans.distance(images)
    explained = min(UNSEEN[0] * near + UNSEEN[1], SEEN)
    return (0.0, explained) if near <= explained else (near / AS_FAR, near * AS_FAR)


def _exposed(apart: Tensor, center: float) -> Tensor:
    """Images in [0, 1], given as what they are from `center`, each with the highlights of faces."""
    each = [center + exposure(center + one[None], center) * one for one in apart]
    return torch.stack(each).clamp(0, 1)


def _stretched(apart: Tensor, center: float, kept: float) -> Tensor:
    """Images in [0, 1], given as what they are from `center`, with the contrast of faces or less.

    Those that are not `PALE` stay.

    Args:
        apart: `[N, C, H, W]`.
        center: What is subtracted from images.
        kept: Share of pixels, at either end, that may leave [0, 1] and are cut off.
    """
    usual = sum(FACE_DEVIATION) / len(FACE_DEVIATION)
    stretched = []
    for one in apart:
        ends = one.flatten().quantile(torch.tensor([kept, 1 - kept]).to(one))
        bounds = zip((-center, 1 - center), ends.tolist(), strict=True)
        room = [bound / end for bound, end in bounds if bound * end > 0]
        factor = min([usual / max(float(one.std()), 1e-6), *room])
        stretched.append(center + (factor if factor * PALE > 1 else 1.0) * one[None])
    return torch.cat(stretched).clamp(0, 1)
