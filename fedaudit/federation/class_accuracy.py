"""How well a federation's shared head tells its classes apart on photos that taught it nothing."""

from dataclasses import dataclass

import torch

from fedaudit.federation.abilities import Labels
from fedaudit.federation.simulation import Simulation, State
from fedaudit.models.zoo import build


@dataclass(frozen=True)
class ClassAccuracy:
    """Of a head that tells apart what everybody has, such as expressions.

    Attributes:
        accuracy: Mean over classes of the share of their photos that are named rightly.
        chance: Of naming one class always: 1 / number of classes.
        photos: How many photos were named.
        held_out: They show people who never train. Else the set states no identities, and they are
            the clients' photos whose labels no client uses (they may train without them).
    """

    accuracy: float
    chance: float
    photos: int
    held_out: bool


def class_accuracy(simulation: Simulation, state: State) -> ClassAccuracy | None:
    """Accuracy of the shared head; None where its classes are people, or no photo is left."""
    faces, names = simulation.faces, simulation.labels_of(0)
    if set(names) & set(faces.people):
        return None
    held_out = [i for i, person in enumerate(faces.people) if person in simulation.split.held_out]
    photos = held_out or _without_label(simulation)
    if not photos:
        return None
    labels = torch.tensor([simulation.label_of(0, photo) for photo in photos])
    model = build(simulation.spec(0), simulation.received(state, 0)).eval()
    with torch.no_grad():
        parts = [model(faces.images[part]) for part in torch.split(torch.tensor(photos), 64)]
    right = torch.cat(parts)[:, : len(names)].argmax(1) == labels
    shares = [right[labels == label].double().mean() for label in sorted(set(labels.tolist()))]
    return ClassAccuracy(
        accuracy=float(torch.stack(shares).mean()),
        chance=1 / len(names),
        photos=len(photos),
        held_out=bool(held_out),
    )


def _without_label(simulation: Simulation) -> list[int]:
    """Photos of clients whose label trains nothing."""
    method = simulation.method
    if not isinstance(method, Labels):
        return []
    left: list[int] = []
    for client, photos in enumerate(simulation.split.photos):
        labels = torch.tensor([simulation.label_of(client, photo) for photo in photos])
        used = {photos[k] for k in method.labelled(labels).tolist()}
        left += [photo for photo in photos if photo not in used]
    return left
