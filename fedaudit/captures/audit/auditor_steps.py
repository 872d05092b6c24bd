"""Local training that the auditor repeats on the network of a recorded update.

What was recorded came from devices that nobody controls. Whether an attack can succeed on this
network at all is tried on one undefended step of a known face, the positive control. And where
nobody knows the originals, training on a reconstruction says how much of an update it explains.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.captures.audit.auditor_photos import Shape, at_shape
from fedaudit.captures.simulate.invented_clients import invented_faces, is_gray
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError, FedauditError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.protocols import Defense
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Shared, Update
from fedaudit.core.trial import Cell
from fedaudit.data.folder import folder, read_photo
from fedaudit.federation.local_training import train_locally
from fedaudit.models.zoo import build


def positive_capture(seen: Observation, cell: Cell, gallery: str) -> Capture:
    """One undefended step of one face from the model that a recorded update started from.

    The attacker is granted what it is granted of the recorded updates. Parameters that clients
    kept on their devices are kept here, too. The cell's target is the number of the face: of
    the people in the folder `gallery` one each; "" takes invented ones.

    Raises:
        AttackError: The recorded update is no model update, or the network cannot be trained on
            such an image.
    """
    update, shape = seen.update, seen.image_shape
    if update is None or shape is None:
        raise AttackError("a control needs a model update and the size of the images to make one.")
    face = _face(gallery, shape, cell.target)
    trained_on = face
    if cell.role == "positive_prior":  # its control: another face, as gray as this one
        trained_on = invented_faces((f"control {cell.target}",), shape, grayscale=is_gray(face))
    with torch.no_grad():
        classes = build(seen.model, seen.before).eval()(face).shape[1]
    generator = generator_for("positive", cell.scenario, cell.target)
    label = torch.randint(classes, (1,), generator=generator)
    training = replace(seen.training or LocalTraining(), steps=1, batch_size=1)
    try:
        step = _retrained(seen, update.kind, trained_on, label, training, "positive step")
    except ValueError:  # batch norm in training mode, with one value a channel
        training = replace(training, batch_norm="eval")
        step = _retrained(seen, update.kind, trained_on, label, training, "positive step")
    shared = replace(step, tensors={n: t for n, t in step.tensors.items() if n in update.tensors})
    name = f"positive control {cell.target}"
    control = replace(
        seen,
        shared=(shared,),
        batch_size=1,
        training=training if seen.training else None,
        defense=None if seen.defense is None else (),
        client=name,
    )
    return Capture(control, Secret(face, torch.tensor([-1]), (name,), (name,)))


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
    training = seen.training or LocalTraining(batch_size=count)
    training = replace(training, batch_size=min(training.batch_size, count))
    images = found.images.clamp(0, 1)
    try:
        step = _retrained(seen, update.kind, images, labels.long(), training, "explained")
    except (AttackError, RuntimeError, ValueError):  # it diverged, or batch norm met one image
        return None
    names = [name for name in update.tensors if name in step.tensors]
    ours = torch.cat([step.tensors[name].flatten().double() for name in names])
    theirs = torch.cat([update.tensors[name].flatten().double() for name in names])
    return float(ours @ theirs / (ours.norm() * theirs.norm()).clamp_min(1e-30))


def _retrained(
    seen: Observation,
    share: Literal["gradient", "delta"],
    images: Tensor,
    labels: Tensor,
    training: LocalTraining,
    seed: str,
) -> Update:
    """The update that a client without a defense would have shared of these images."""
    update = retrained(seen, share, images, labels, training, seed)[0]
    assert isinstance(update, Update)  # of `share`
    return update


def retrained(
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


def _face(gallery: str, shape: Shape, number: int) -> Tensor:
    """A face `[1, C, H, W]`: of the gallery's people one each, else of the face GAN."""
    if gallery:
        photos = folder(path=gallery, size=16)  # only their names
        first = {person: k for k, person in reversed([*enumerate(photos.people)])}
        person = sorted(first)[number % len(first)]
        return at_shape(read_photo(Path(gallery) / photos.sources[first[person]]), shape)[None]
    faces = FaceGenerator().load(shape, grayscale=False)
    generator = generator_for("positive face", number)
    with torch.no_grad():
        return faces.images(faces.sample(1, generator)).clamp(0, 1)
