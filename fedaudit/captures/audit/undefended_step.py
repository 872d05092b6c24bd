"""The positive control of a recorded run: an update that nothing protects, of a face that is known.

What was recorded came from devices that nobody controls, so whether an attack can succeed on this
network at all is tried on a step that the auditor makes: from the recorded broadcast, on one face.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.captures.audit.auditor_photos import Shape, at_shape
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.protocols import Metric
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Shared, Update
from fedaudit.core.trial import Cell, ImageScore
from fedaudit.data.folder import folder, read_photo
from fedaudit.federation.local_training import train_locally
from fedaudit.models.zoo import build
from fedaudit.scoring.image_metrics import MSE, PSNR, SSIM

PREFIX = "positive control"


def positive_capture(seen: Observation, cell: Cell, gallery: str) -> Capture:
    """One undefended step of one face from the model that a recorded update started from.

    The attacker is granted what it is granted of the recorded updates. Parameters that clients kept
    on their devices are kept here, too.

    Args:
        seen: The recorded update.
        cell: Its target is the number of the face.
        gallery: A folder a person, whose faces are taken; "" for invented ones.

    Raises:
        AttackError: The recorded update is no model update, or the network cannot be trained on
            such an image.
    """
    update, shape = seen.update, seen.image_shape
    if update is None or shape is None:
        raise AttackError("a control needs a model update and the size of the images to make one.")
    face = _face(gallery, shape, cell.target)
    with torch.no_grad():
        classes = build(seen.model, seen.before).eval()(face).shape[1]
    generator = generator_for("positive", cell.scenario, cell.target)
    label = torch.randint(classes, (1,), generator=generator)
    training = replace(seen.training or LocalTraining(), steps=1, batch_size=1)
    try:
        shared = _trained(seen, update, face, label, training)
    except ValueError:  # batch norm in training mode, with one value a channel
        training = replace(training, batch_norm="eval")
        shared = _trained(seen, update, face, label, training)
    name = f"{PREFIX} {cell.target}"
    control = replace(
        seen,
        shared=(shared,),
        batch_size=1,
        training=training if seen.training else None,
        defense=None if seen.defense is None else (),
        client=name,
    )
    return Capture(control, Secret(face, torch.tensor([-1]), (name,), (name,)))


def scored(secret: Secret, found: Reconstruction) -> tuple[ImageScore, ...]:
    """How like the face what came back is. Identity plays no part: the face may be an invented one.

    Args:
        secret: One face.
        found: One image.
    """
    images = found.images[:1].clamp(0, 1).cpu()
    metrics: dict[str, Metric] = {"ssim": SSIM(), "psnr": PSNR(), "mse": MSE()}
    values = {name: float(metric(secret.images, images)) for name, metric in metrics.items()}
    return (ImageScore(secret.people[0], values),)


def _trained(
    seen: Observation, update: Update, face: Tensor, label: Tensor, training: LocalTraining
) -> Shared:
    task = ClientTask(
        model=seen.model,
        before=seen.before,
        kept={},
        images=face,
        labels=label,
        training=training,
        share=update.kind,
        generator=generator_for("positive step"),
    )
    made = train_locally(task).shared[0]
    assert isinstance(made, Update)  # of `share`
    return replace(made, tensors={n: t for n, t in made.tensors.items() if n in update.tensors})


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
