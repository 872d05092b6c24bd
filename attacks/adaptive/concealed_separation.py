"""Images that a defense put beside a photo: found together with it, by labels that tell them apart.

A concealed sample carries a blend of its photo's label with another one. So the head's gradient
shows the photo's class most, and the others less; with the right labels the gradient of the first
fully connected layer comes apart into each image's own map, exactly, and with wrong ones it does
not: which is how the few guesses that are open are told apart. Where all show one person, labels
tell nothing, but what was searched for its gradient is rougher than what a camera saw: images that
are kept smooth come nearer to a photo's map than to a sample's.
"""

from dataclasses import replace
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    FirstFullyConnected,
    take_apart,
)
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient
from fedaudit.attacks.evidence.labels.rules import presence
from fedaudit.defenses.gradient_transforms import Accompanies

FURTHER = 1
"""Classes that are tried beyond those that must be there."""


def among_company(
    first_fc: FirstFullyConnected, model: nn.Module, head: HeadGradient, company: Accompanies
) -> tuple[FirstFullyConnected, Tensor] | None:
    """The maps of one photo, which comes first, and of all images beside it; their labels.

    Args:
        first_fc: The layer, with the span of their maps.
        model: The network.
        head: The head's gradient.
        company: Says what labels the images have.

    Returns:
        The layer with `maps`, and `[N, K]` class probabilities; None where no labels explain the
        gradient, as under noise.
    """
    classes = len(head.gradient)
    if first_fc.maps is not None:
        first_fc = replace(first_fc, maps=None, upstream=None)
    order = presence(head).argsort(descending=True, stable=True)
    likely = order[: min(classes, head.count + FURTHER)].tolist()
    rows = torch.eye(classes).to(head.gradient)
    for own in likely:
        for others in combinations([k for k in likely if k != own], head.count - 1):
            labels = company.labels_beside(rows[own], rows[list(others)])
            found = take_apart(first_fc, model, labels)
            if found.maps is not None:
                return found, labels
    return None


def photo_among(first_fc: FirstFullyConnected, features: Tensor, *, told: bool) -> int:
    """Which of the images is the photo: the first if labels told it, or the one that fits best.

    Args:
        first_fc: With the images' maps.
        features: `[N, F]`, those of the rebuilt images.
        told: Whether labels told the photo.
    """
    assert first_fc.maps is not None
    if told:
        return 0
    return int(F.cosine_similarity(first_fc.told(features), first_fc.maps).argmax())
