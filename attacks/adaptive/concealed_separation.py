"""Separation of a photo from the concealed samples that a defense trained beside it.

A concealed sample carries a blend of its photo's label with another one. With the right labels the
gradient of the first fully connected layer comes apart into each image's own map, exactly, and with
wrong ones it does not, which settles the few guesses that are open. Where all show one person,
images that are kept smooth come nearer to a photo's map than to a sample's, which is rougher.
"""

from dataclasses import replace
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.adaptive.defense_adaptation import Attacker, DefenseAdaptation, Rounds
from fedaudit.attacks.evidence.feature_maps.first_fully_connected import FirstFullyConnected
from fedaudit.attacks.evidence.feature_maps.map_separation import take_apart
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient
from fedaudit.attacks.evidence.labels.infer import presence
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.defenses.gradient_transforms import Conceals
from fedaudit.models.facenet import FaceNet
from fedaudit.models.soft_labels import most_likely

FURTHER = 1
"""Classes that are tried beyond those that must be there."""


def concealment(defense: Conceals) -> DefenseAdaptation:
    """What to do about a defense that puts samples beside one photo."""
    return DefenseAdaptation(
        name="concealed",
        read=partial(_with_maps, defense),
        reveal=_photo_alone,
        handled=lambda reading, attacker: attacker.single_step and is_separable(reading),
    )


def _with_maps(
    defense: Conceals, reading: Reading, head: HeadGradient | None, rounds: Rounds
) -> Reading:
    """The reading with each image's map and label, where labels explain the gradient."""
    del rounds
    if reading.first_fc is None or head is None:
        return reading
    separation = separate(reading.first_fc, reading.model, head, defense)
    if separation is None:
        return reading
    first_fc, soft = separation
    return replace(reading, first_fc=first_fc, soft=soft, labels=most_likely(soft))


def is_separable(reading: Reading) -> bool:
    """Whether the photo can be told from the samples beside it: by `soft` labels, or by person."""
    if reading.labels is None:
        return False
    has_maps = reading.first_fc is not None and reading.first_fc.maps is not None
    return reading.soft is not None or (
        has_maps and bool((reading.labels == reading.labels[0]).all())
    )


def _photo_alone(
    images: Tensor, labels: Tensor, reading: Reading, attacker: Attacker
) -> tuple[Tensor, Tensor]:
    """The photo `[1, C, H, W]` among rebuilt images `[N, C, H, W]`, and its label."""
    del attacker
    if not is_separable(reading):
        return images, labels
    assert reading.first_fc is not None
    assert isinstance(reading.model, FaceNet)
    with torch.no_grad():
        features = reading.model.features(images)
    which = photo_among(reading.first_fc, features, labeled=reading.soft is not None)
    return images[which : which + 1], labels[which : which + 1]


def separate(
    first_fc: FirstFullyConnected, model: nn.Module, head: HeadGradient, defense: Conceals
) -> tuple[FirstFullyConnected, Tensor] | None:
    """The maps of one photo, which comes first, and of all images beside it; their labels `[N, K]`.

    None where no labels explain the gradient, as under noise.
    """
    classes = len(head.gradient)
    if first_fc.maps is not None:
        first_fc = replace(first_fc, maps=None, upstream=None)
    order = presence(head).argsort(descending=True, stable=True)
    likely = order[: min(classes, head.count + FURTHER)].tolist()
    rows = torch.eye(classes).to(head.gradient)
    for own in likely:
        for others in combinations([k for k in likely if k != own], head.count - 1):
            labels = defense.labels_beside(rows[own], rows[list(others)])
            separation = take_apart(first_fc, model, labels)
            if separation.maps is not None:
                return separation, labels
    return None


def photo_among(first_fc: FirstFullyConnected, features: Tensor, *, labeled: bool) -> int:
    """Which of the images with `features` `[N, F]` is the photo: the first where they are labeled,
    or else what fits best.
    """
    assert first_fc.maps is not None
    if labeled:
        return 0
    return int(F.cosine_similarity(first_fc.known_part(features), first_fc.maps).argmax())
