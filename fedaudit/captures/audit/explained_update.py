"""How much of a recorded update a reconstruction explains, where nobody knows the originals."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError, FedauditError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for
from fedaudit.federation.local_training import train_locally


def explained(seen: Observation, found: Reconstruction, *, own: bool = True) -> float | None:
    """Cosine between the update and the one that a client would have made of the reconstruction.

    1 where the reconstruction explains all of it; independent of the attack's own objective, so
    that attacks and controls can be compared. A photo that looks different may explain an update,
    too: this is no likeness.

    Args:
        seen: Holds the update.
        found: The images.
        own: They were rebuilt from this update: labels are the attack's, as far as it has any.
            Else, and where it has none, they are inferred from the update, so that a control is
            not told apart by its labels alone.

    Returns:
        None where labels cannot be inferred, or no update was shared.
    """
    update = seen.update
    if update is None:
        return None
    labels: Tensor | None = found.labels
    if not own or bool((found.labels < 0).any()):
        labels = _inferred(seen)
    if labels is None or len(labels) != len(found.images):
        return None
    count = len(found.images)
    training = seen.training or LocalTraining(batch_size=count)
    task = ClientTask(
        model=seen.model,
        before=seen.before,
        kept={},
        images=found.images.clamp(0, 1),
        labels=labels.long(),
        training=replace(training, batch_size=min(training.batch_size, count)),
        share=update.kind,
        generator=generator_for("explained"),
    )
    try:
        made = train_locally(task).shared[0]
    except (AttackError, RuntimeError, ValueError):  # it diverged, or batch norm met one image
        return None
    tensors: Mapping[str, Tensor] = made.tensors  # type: ignore[attr-defined]
    names = [name for name in update.tensors if name in tensors]
    ours = torch.cat([tensors[name].flatten().double() for name in names])
    theirs = torch.cat([update.tensors[name].flatten().double() for name in names])
    return float(ours @ theirs / (ours.norm() * theirs.norm()).clamp_min(1e-30))


def _inferred(seen: Observation) -> Tensor | None:
    try:
        return gather(seen).labels
    except (FedauditError, RuntimeError):
        return None
