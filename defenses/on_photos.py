"""Defenses that change what a client trains on, before it trains."""

from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.defenses.gradient_transforms import ImageTransform
from fedaudit.models.soft_labels import most_likely

PER_IMAGE = "one image"
"""How the unit of a budget starts that counts images (`defenses.dpsgd`)."""


def on_photos(step: ClientStep, transform: ImageTransform) -> ClientStep:
    """The client's step on what `transform` makes of its photos, once a round, an image a photo.

    Photos that train without labels (FedAffect) are changed in the same way.
    """

    def guarded(task: ClientTask) -> ClientReturn:
        images, labels = transform(task.images, task.labels, task.generator)
        return step(
            replace(task, images=images, labels=labels, unlabelled=without_labels(task, transform))
        )

    return guarded


def with_copies(step: ClientStep, transform: ImageTransform, copies: int, name: str) -> ClientStep:
    """The client's step on `copies` images of each photo, which `transform` puts side by side.

    Args:
        step: The client's.
        transform: As for `on_photos`.
        copies: Images that it makes of each photo.
        name: Of the defense, for messages.
    """

    def guarded(task: ClientTask) -> ClientReturn:
        images, labels = transform(task.images, task.labels, task.generator)
        changed = replace(
            task,
            images=images,
            labels=labels,
            unlabelled=without_labels(task, transform),
            copies=task.copies * copies,
        )
        returned = alone(step, name)(changed)
        behind = most_likely(labels) if returned.labels is None else returned.labels
        return replace(returned, labels=behind)

    return guarded


def alone(step: ClientStep, name: str) -> ClientStep:
    """The client's step, refused where a guarantee counts images that are no longer one photo's.

    Raises:
        ConfigError: DP-SGD before or after.
    """

    def guarded(task: ClientTask) -> ClientReturn:
        returned = None if task.prepare is not None else step(task)
        if returned is None or (returned.budget and returned.budget.unit.startswith(PER_IMAGE)):
            raise ConfigError(
                f"with {name} one photo is in several training images, and DP-SGD's ε is for one: "
                "the guarantee would not hold for a photo. Use them apart, or ats, which makes one "
                "image of each photo, with dpsgd."
            )
        return returned

    return guarded


def without_labels(task: ClientTask, transform: ImageTransform) -> Tensor | None:
    """What `transform` makes of the photos that train without labels; None where there are none."""
    if task.unlabelled is None or not len(task.unlabelled):
        return task.unlabelled
    nobody = torch.zeros(len(task.unlabelled), dtype=torch.long)
    return transform(task.unlabelled, nobody, task.generator)[0]
