"""Photos that follow from an update by arithmetic, where nothing is left to search."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from fedaudit.attacks.evidence.known_entries import KnownEntries, rounded_entries
from fedaudit.attacks.evidence.position_adam import photo_by_adam
from fedaudit.attacks.evidence.position_completion import photo_by_completion
from fedaudit.attacks.evidence.position_embedding import parameters_of_places, photo_by_position
from fedaudit.attacks.evidence.position_regression import photo_by_regression
from fedaudit.attacks.evidence.token_placing import photos_by_tokens
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.span_matching import SEEN, SpanMatching
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Update

PLACED = 0.01
"""Share of a batch's tokens, as variance, that photos may leave unexplained, after steps whose
layers' inputs drift out of what is spanned: one of 68 in a wrong place leaves as much."""


@dataclass(frozen=True)
class ClosedForm:
    """What a closed form gives.

    Attributes:
        images: `[N, C, H, W]`.
        proven: More equations than unknowns hold, or layers' inputs bear each photo out.
    """

    images: Tensor
    proven: bool


def solve_photos(
    evidence: Evidence, seen: Observation, spans: SpanMatching | None, seed: int
) -> ClosedForm | None:
    """The photos of a vision transformer; None where no closed form applies.

    One photo by its position embedding proves itself, after many local steps, too; where steps of
    Adam or the rounding of weights blur it, the likeliest one is taken. A batch by its tokens must
    explain them, or be near to what layers' inputs span: tokens may come out in wrong places.

    Args:
        evidence: What was gathered.
        seen: From it.
        spans: What layers' inputs span, where the attack looks at that.
        seed: Of all randomness.
    """
    if evidence.photos.transforms or evidence.adaptation.special:
        return None
    photo = photo_by_position(evidence)
    if photo is not None:
        return ClosedForm(photo, proven=True)
    photo = photo_by_completion(evidence, _kept(evidence, seen))
    if photo is not None:
        return ClosedForm(photo, proven=True)
    photo = photo_by_regression(evidence, _entries(evidence, seen))
    if photo is None:
        photo = _after_adam(evidence, seen)
    if photo is not None:
        return ClosedForm(photo, proven=False)
    return None if spans is None else _by_tokens(evidence, spans, seed)


def _after_adam(evidence: Evidence, seen: Observation) -> Tensor | None:
    """One photo after several steps of Adam that were sent as they were taken."""
    update = evidence.adaptation.update or seen.update
    if update is None or update.kind != "delta" or not evidence.adaptation.untouched:
        return None
    if seen.training is None or seen.training.augmentation:
        return None
    return photo_by_adam(evidence, seen.before, update.tensors, seen.training)


def _by_tokens(evidence: Evidence, spans: SpanMatching, seed: int) -> ClosedForm | None:
    placed = photos_by_tokens(evidence, seed)
    if placed is None:
        return None
    left = placed.left if placed.tells_places else math.inf
    explained = left <= (SEEN if evidence.count == 1 else PLACED)  # of no numbers, no
    if not explained and not spans.bears_out(placed.images):
        return None
    return ClosedForm(placed.images, proven=min(left, spans.distance(placed.images)) <= SEEN)


def _kept(evidence: Evidence, seen: Observation) -> Mapping[str, KnownEntries]:
    """What pruning left of one image's gradient, after many local steps, too; {} of others."""
    update = evidence.adaptation.update or seen.update
    pruned = evidence.adaptation.pruned and not evidence.signs and evidence.count == 1
    if update is None or not pruned:
        return {}
    entries = _rounded(evidence, seen, update)
    unsent = {name: evidence.target[name] == 0 for name in entries}
    return {
        name: replace(one, errors=one.errors.masked_fill(unsent[name], math.inf))
        for name, one in entries.items()
    }


def _entries(evidence: Evidence, seen: Observation) -> Mapping[str, KnownEntries]:
    """What is known of one image's gradient, and how exactly; {} where that is not known."""
    if evidence.known or evidence.count != 1:
        return evidence.known
    update = evidence.adaptation.update or seen.update
    if update is None or evidence.signs or not evidence.adaptation.exact:
        return {}
    return _rounded(evidence, seen, update)


def _rounded(evidence: Evidence, seen: Observation, update: Update) -> dict[str, KnownEntries]:
    """The numbers of patches' and places' weights, with the errors that rounding left in them."""
    before = seen.before if update.kind == "delta" else None
    steps = seen.training.steps if seen.training else 1
    target = {name: evidence.target[name] for name in parameters_of_places(evidence)}
    return rounded_entries(target, update.tensors, before, steps)
