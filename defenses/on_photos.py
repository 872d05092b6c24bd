"""Defenses that change what a client trains on, before it trains."""

from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.defenses.gradient_transforms import ImageTransform
from fedaudit.models.soft_labels import most_likely

PER_IMAGE = "image"
"""Unit of a claim that counts images (`defenses.dpsgd`)."""


def on_photos(
    step: ClientStep, transform: ImageTransform, *, copies: int = 1, several: str | None = None
) -> ClientStep:
    """The client's step on what `transform` makes of its photos, once a round.

    Photos that train without labels (FedAffect) are changed in the same way.

    Args:
        step: The client's.
        transform: Of photos and labels.
        copies: Images that it makes of each photo, side by side.
        several: Name of the defense where a photo is in several of the images, so that a guarantee
            that counts images, DP-SGD's, is refused; None where each photo makes one image.
    """

    def guarded(task: ClientTask) -> ClientReturn:
        images, labels = transform(task.images, task.labels, task.generator)
        inner = replace(
            task,
            images=images,
            labels=labels,
            unlabelled=without_labels(task, transform),
            copies=task.copies * copies,
        )
        reply = _alone(step, inner, several) if several else step(inner)
        if copies == 1 or reply.labels is not None:
            return reply
        return replace(reply, labels=most_likely(labels))

    return guarded


def _alone(step: ClientStep, task: ClientTask, name: str) -> ClientReturn:
    reply = None if task.prepare is not None else step(task)
    if reply is None or any(claim.unit == PER_IMAGE for claim in reply.claims):
        raise ConfigError(
            f"with {name} one photo is in several training images, and DP-SGD's ε is for one: "
            "the guarantee would not hold for a photo. Use them apart, or ats, which makes one "
            "image of each photo, with dpsgd."
        )
    return reply


def without_labels(task: ClientTask, transform: ImageTransform) -> Tensor | None:
    """What `transform` makes of the photos that train without labels; None where there are none."""
    if task.unlabelled is None or not len(task.unlabelled):
        return task.unlabelled
    nobody = torch.zeros(len(task.unlabelled), dtype=torch.long)
    return transform(task.unlabelled, nobody, task.generator)[0]
