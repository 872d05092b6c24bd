"""Defenses that change what a client trains on, before it trains."""

from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.defenses.acts import ImageAct
from fedaudit.verbs import ClientReturn, ClientStep, ClientTask


def on_photos(step: ClientStep, act: ImageAct) -> ClientStep:
    """The client's step on what `act` makes of its photos, once a round, one image of each photo.

    Photos that train without labels (FedAffect) are changed in the same way.
    """

    def guarded(task: ClientTask) -> ClientReturn:
        images, labels = act(task.images, task.labels, task.generator)
        return step(replace(task, images=images, labels=labels, unlabelled=_unlabelled(task, act)))

    return guarded


def _unlabelled(task: ClientTask, act: ImageAct) -> Tensor | None:
    if task.unlabelled is None or not len(task.unlabelled):
        return task.unlabelled
    nobody = torch.zeros(len(task.unlabelled), dtype=torch.long)
    return act(task.unlabelled, nobody, task.generator)[0]
