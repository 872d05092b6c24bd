"""Defenses that act on the update as it leaves the device, whatever trained it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.shared import Shared, Update
from fedaudit.defenses.gradient_transforms import GradientTransform, Replays, in_order

INNER = "inner/"
"""Before the names of what defenses further in remember, so that any two fit into each other."""


def with_changed_updates(
    step: ClientStep, change: Callable[[Update, ClientTask, ClientReturn], Mapping[str, Tensor]]
) -> ClientStep:
    """The client's step, with the tensors that `change` gives for every model update it shares."""

    def guarded(task: ClientTask) -> ClientReturn:
        reply = step(task)
        shared = tuple(
            replace(payload, tensors=change(payload, task, reply))
            if isinstance(payload, Update)
            else payload
            for payload in reply.shared
        )
        return replace(reply, shared=shared)

    return guarded


def on_sending(step: ClientStep, transforms: Sequence[GradientTransform]) -> ClientStep:
    """The client's step, with `transforms` done to every model update that it shares.

    They act on what is sent, in its units: the mean gradient (FedSGD), or the change of the weights
    over all local steps (FedAvg), which is about the learning rate times as large.
    """
    return with_changed_updates(
        step, lambda payload, task, _: _change(payload.tensors, transforms, task.generator)
    )


def with_error_feedback(step: ClientStep, transforms: Sequence[GradientTransform]) -> ClientStep:
    """As `on_sending`, and what the transforms leave out is added to the update of the next round.

    Error feedback: of an update u and memory e, t(u + e) is sent and u + e − t(u + e) stays
    on the device, t the transforms; the memory is empty in a client's first round (Stich et al.,
    NeurIPS 2018, arXiv 1809.07599, algorithm 1).
    """

    def guarded(task: ClientTask) -> ClientReturn:
        inner = {n.removeprefix(INNER): t for n, t in task.memory.items() if n.startswith(INNER)}
        reply = step(replace(task, memory=inner))
        memory = {f"{INNER}{name}": value for name, value in reply.memory.items()}
        shared: list[Shared] = []
        for number, payload in enumerate(reply.shared):
            if not isinstance(payload, Update):
                shared.append(payload)
                continue
            due = {
                name: value + task.memory.get(f"{number}/{name}", torch.zeros_like(value))
                for name, value in payload.tensors.items()
            }
            tensors = _change(due, transforms, task.generator)
            memory |= {f"{number}/{name}": due[name] - value for name, value in tensors.items()}
            shared.append(replace(payload, tensors=tensors))
        return replace(reply, shared=tuple(shared), memory=memory)

    return guarded


def send_replayed(defense: Replays, step: ClientStep) -> ClientStep:
    """The method `__call__` of a defense that does to an update what its `replay` says."""
    send = with_error_feedback if getattr(defense, "error_feedback", False) else on_sending
    return send(step, defense.replay(1).mean)


def sparse_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Of each number that is not zero, itself and its place, four bytes each; or all, if fewer."""
    numbers = sum(value.numel() for value in tensors.values())
    left = sum(int(value.count_nonzero()) for value in tensors.values())
    return min(8 * left, 4 * numbers)


def _change(
    tensors: Mapping[str, Tensor],
    transforms: Sequence[GradientTransform],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    if not tensors:
        return {}
    batch = {name: value[None] for name, value in tensors.items()}
    return {name: value[0] for name, value in in_order(transforms, batch, generator).items()}
