"""Photos mixed with others of their client (mixup, InstaHide): how, and the photo behind them.

An update of one mixed image gives it away like any other, and its head's gradient which people are
in it and with which coefficients (`mixed_label`). A client that trains on a photo for several
rounds mixes it anew each time: its person is there every time, and what is added fades. Huang et
al. (NeurIPS 2021, arXiv 2112.00059) separate mixtures with coefficients that they know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.defense_adaptation import Attacker, DefenseAdaptation, Rounds
from fedaudit.attacks.adaptive.mixture_arithmetic import Coefficients, drawn_on, photo_behind
from fedaudit.attacks.evidence.feature_maps.first_fully_connected import leads_to_head
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient, mixed_label
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.defenses.gradient_transforms import ImageTransform
from fedaudit.models.facenet import FaceNet
from fedaudit.models.soft_labels import most_likely

TRIES = 4
"""Draws of a transform by which it is recognized."""
CLOSE = 1e-4
"""Largest difference of two images that rounding explains."""
MASKED = "masked mixture"
MIXTURES = frozenset({"mixture", MASKED})
"""Names of the adaptations to mixtures."""


@dataclass(frozen=True)
class Mixture:
    """How one photo is mixed with others.

    Attributes:
        transforms: What does it, in order.
        masked: Values of the sum are turned into their negative at random, as InstaHide does.
    """

    transforms: tuple[ImageTransform, ...]
    masked: bool


def as_mixture(transforms: Sequence[ImageTransform], shape: tuple[int, int, int]) -> Mixture | None:
    """The transforms, if they make of one photo, and of others, one weighted sum; labels with them.

    Found out by trying them on images and people of no client, each another one.
    """
    has_mask = False
    for seed in range(TRIES):
        example = drawn_on(transforms, shape, seed)
        if example.sums is None or len(example.images) != 1 or example.labels[0, 0] <= 0:
            return None
        has_mask = has_mask or float((example.images - example.sums).abs().max()) > CLOSE
        sizes, sums = ((2 * x - 1).abs() for x in (example.images, example.sums))
        if float((sizes - sums).abs().max()) > CLOSE:
            return None
    return Mixture(tuple(transforms), has_mask)


def separation(mixture: Mixture) -> DefenseAdaptation:
    """What to do about photos that were mixed so."""
    return DefenseAdaptation(
        name=MASKED if mixture.masked else "mixture",
        repeats=False,
        read=_with_coefficients,
        looks_like_noise=lambda reading: mixture.masked and reading.soft is not None,
        reveal=partial(_photo_behind_rounds, mixture),
        handled=_is_separable,
    )


def _with_coefficients(reading: Reading, head: HeadGradient | None, rounds: Rounds) -> Reading:
    """The reading with the mixture's coefficients as class probabilities, where they show."""
    del rounds
    first_fc, model = reading.first_fc, reading.model
    if first_fc is None or head is None or first_fc.maps is None or first_fc.known is not None:
        return reading
    if not leads_to_head(model):
        return reading
    assert isinstance(model, FaceNet)
    place = first_fc.maps[0]
    if model.first_fc_layer is not model.head:
        place = first_fc.weight @ place
    label = mixed_label(head, place)
    if label is None:
        return reading
    return replace(reading, soft=label[None], labels=most_likely(label[None]))


def _is_separable(reading: Reading, attacker: Attacker) -> bool:
    """Whether the coefficients are known, to an attack that rebuilds the mixture and has faces."""
    return reading.soft is not None and attacker.single_step and attacker.source is not None


def _photo_behind_rounds(
    mixture: Mixture, images: Tensor, labels: Tensor, reading: Reading, attacker: Attacker
) -> tuple[Tensor, Tensor]:
    """The photo `[1, C, H, W]` that the mixtures of all rounds share, and its label."""
    if not _is_separable(reading, attacker):
        return images, labels
    assert reading.soft is not None
    images_of_rounds, coefficients = [images[0]], [reading.soft[0]]
    for image, soft in attacker.earlier_rounds():
        images_of_rounds.append(image)
        coefficients.append(soft)
    mixtures, shares = torch.stack(images_of_rounds), Coefficients.of(torch.stack(coefficients))
    if mixture.masked:
        mixtures, mean = attacker.unmasked(mixture.transforms, mixtures, shares)
    else:
        mean = attacker.mean_face()
    return photo_behind(mixtures, shares, mean)[None], torch.tensor([shares.label])
