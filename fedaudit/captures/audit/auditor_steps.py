"""Local training that the auditor repeats on the network of a recorded update.

What was recorded came from devices that nobody controls. Whether an attack can succeed on this
network at all is tried on known faces, trained on as the clients trained: the positive control. And
where nobody knows the originals, training on a reconstruction says how much of an update it
explains.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError, FedauditError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.protocols import Defense
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Shared, Update
from fedaudit.federation.local_training import train_locally
from fedaudit.models.build_network import build


def positive_capture(seen: Observation, name: str, truth: Secret, trained_on: Tensor) -> Capture:
    """What an undefended client would have sent of known faces, trained as the clients trained.

    Steps, optimizer, learning rate and batch are those of the recorded update, from whose model it
    starts. The attacker is granted what it is granted of the recorded updates. Parameters that
    clients kept on their devices are kept here, too.

    Args:
        seen: The recorded update.
        name: Of the control; its randomness is drawn by it.
        truth: The known faces, as many as the clients train on.
        trained_on: `[N, C, H, W]` in [0, 1], what the update is of: these faces, or, for the
            control's own control, others.

    Raises:
        AttackError: The recorded update is no model update, or the network cannot be trained on
            such images.
    """
    update, count = seen.update, len(trained_on)
    if update is None:
        raise AttackError("a control needs a model update to make one like it.")
    with torch.no_grad():
        classes = build(seen.model, seen.before).eval()(trained_on).shape[1]
    labels = torch.randint(classes, (count,), generator=generator_for("positive", name))
    training = seen.mode or LocalTraining(batch_size=count)
    training = replace(training, batch_size=min(training.batch_size, count))
    try:
        step = _retrain(seen, update.kind, trained_on, labels, training, "positive step")
    except ValueError:  # batch norm in training mode, with one value a channel
        training = replace(training, batch_norm="eval")
        step = _retrain(seen, update.kind, trained_on, labels, training, "positive step")
    payload = replace(step, tensors={n: t for n, t in step.tensors.items() if n in update.tensors})
    control = replace(
        seen,
        shared=(payload,),
        batch_size=count,
        training=training if seen.training else None,
        defense=None if seen.defense is None else (),
        client=name,
    )
    return Capture(control, truth)


def explained(seen: Observation, found: Reconstruction, *, own: bool = True) -> float | None:
    """Cosine between the update and the one that a client would have made of the reconstruction.

    1 where the reconstruction explains all of it; independent of the attack's own objective, so
    that attacks and controls can be compared. A photo that looks different may explain an
    update, too: this is no likeness. Labels are the attack's, as far as it has any, where the
    images were rebuilt from this update (`own`). Else they are inferred from the update, so
    that a control is not told apart by its labels alone.

    Returns:
        None where labels cannot be inferred, or no update was shared.
    """
    update = seen.update
    if update is None:
        return None
    labels: Tensor | None = found.labels
    if not own or bool((found.labels < 0).any()):
        try:
            labels = gather(seen).labels
        except (FedauditError, RuntimeError):
            return None
    if labels is None or len(labels) != len(found.images):
        return None
    count = len(found.images)
    training = seen.mode or LocalTraining(batch_size=count)
    training = replace(training, batch_size=min(training.batch_size, count))
    images = found.images.clamp(0, 1)
    try:
        step = _retrain(seen, update.kind, images, labels.long(), training, "explained")
    except (AttackError, RuntimeError, ValueError):  # it diverged, or batch norm met one image
        return None
    names = [name for name in update.tensors if name in step.tensors]
    ours = torch.cat([step.tensors[name].flatten().double() for name in names])
    theirs = torch.cat([update.tensors[name].flatten().double() for name in names])
    return float(ours @ theirs / (ours.norm() * theirs.norm()).clamp_min(1e-30))


def _retrain(
    seen: Observation,
    share: Literal["gradient", "delta"],
    images: Tensor,
    labels: Tensor,
    training: LocalTraining,
    seed: str,
) -> Update:
    """The update that a client without a defense would have shared of these images."""
    update = retrain(seen, share, images, labels, training, seed)[0]
    assert isinstance(update, Update)  # of `share`
    return update


def retrain(
    seen: Observation,
    share: Literal["gradient", "delta"],
    images: Tensor,
    labels: Tensor,
    training: LocalTraining,
    seed: str,
    defense: Defense | None = None,
) -> tuple[Shared, ...]:
    """What a client would have shared of images `[N, C, H, W]` with labels `[N]`, the update first.

    Raises:
        AttackError: Training diverged.
    """
    task = ClientTask(
        model=seen.model,
        before=seen.before,
        kept={},
        images=images,
        labels=labels,
        training=training,
        share=share,
        generator=generator_for(seed),
    )
    step = train_locally if defense is None else defense(train_locally)
    return step(task).shared
