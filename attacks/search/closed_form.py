"""Photos that follow from an update by arithmetic, where nothing is left to search."""

from dataclasses import dataclass

from torch import Tensor

from fedaudit.attacks.evidence.position_embedding import photo_by_position
from fedaudit.attacks.evidence.token_placing import photos_by_tokens
from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching


@dataclass(frozen=True)
class ClosedForm:
    """What a closed form gives.

    Attributes:
        images: `[N, C, H, W]`.
        proven: More equations than unknowns hold, or layers' inputs bear each photo out.
    """

    images: Tensor
    proven: bool


def solve_photos(evidence: Evidence, spans: SpanMatching | None, seed: int) -> ClosedForm | None:
    """The photos of a vision transformer; None where no closed form applies.

    One photo by its position embedding proves itself, after many local steps, too. A batch by its
    tokens must be near to what layers' inputs span: tokens may come out in wrong places.

    Args:
        evidence: What was gathered.
        spans: What layers' inputs span, where the attack looks at that.
        seed: Of all randomness.
    """
    if evidence.photos.transforms or evidence.adaptation.special:
        return None
    photo = photo_by_position(evidence)
    if photo is not None:
        return ClosedForm(photo, proven=True)
    photos = None if spans is None else photos_by_tokens(evidence, seed)
    if photos is None or spans is None or not spans.bears_out(photos):
        return None
    return ClosedForm(photos, proven=spans.distance(photos) <= SEEN)
