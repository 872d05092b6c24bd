"""Defenses that act on the update as it leaves the device, whatever trained it."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from fedaudit.defenses.acts import Act, in_order
from fedaudit.types import Update
from fedaudit.verbs import ClientReturn, ClientStep, ClientTask


def on_sending(step: ClientStep, acts: Sequence[Act]) -> ClientStep:
    """The client's step, with `acts` done to every model update that it shares.

    They act on what is sent, in its units: the mean gradient (FedSGD), or the change of the weights
    over all local steps (FedAvg), which is about the learning rate times as large.
    """

    def guarded(task: ClientTask) -> ClientReturn:
        returned = step(task)
        shared = tuple(
            replace(sent, tensors=_changed(sent, acts, task)) if isinstance(sent, Update) else sent
            for sent in returned.shared
        )
        return replace(returned, shared=shared)

    return guarded


def _changed(sent: Update, acts: Sequence[Act], task: ClientTask) -> dict[str, Tensor]:
    if not sent.tensors:
        return {}
    batch = {name: value[None] for name, value in sent.tensors.items()}
    return {name: value[0] for name, value in in_order(acts, batch, task.generator).items()}
