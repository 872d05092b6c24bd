"""The lineup: identity cosines of a reconstruction to everybody who could have been the target.

The test on identity (`fedaudit.stats.randomization`) is exact as long as the truth enters it by
names alone. So reconstructions are not paired with the originals that they resemble, which
`fedaudit.scoring.pairing` does by pixels: a place is known by its label, and else by its update.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.capture import Secret
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.trial import Lineup
from fedaudit.scoring.identity import Gallery

DIGITS = 6
"""Of the cosines that are kept; single precision has no more."""


def lineup(
    secret: Secret, reconstruction: Reconstruction, gallery: Gallery, embeddings: Tensor
) -> Lineup | None:
    """The cosines that the test needs; None where nobody behind the update can be identified.

    Args:
        secret: The truth, as captured.
        reconstruction: What the attack returned.
        gallery: Reference photos.
        embeddings: `[N, D]` of all its images, by the embedder that made the gallery.
    """
    labels = _labels_of_people(secret, reconstruction)
    eligible = set(secret.eligible or gallery.people)
    people = tuple(person for person in gallery.people if person in eligible)
    present = tuple(person for person in labels if person in people)
    if not present:
        return None
    places = torch.tensor([gallery.people.index(person) for person in people])
    units = F.normalize(embeddings - gallery.center, dim=1)
    cosines = units @ gallery.templates[places].T
    rows = [_closest(cosines, reconstruction.labels, labels[person]) for person in present]
    return Lineup(people, present, tuple(rows))


def _labels_of_people(secret: Secret, reconstruction: Reconstruction) -> dict[str, set[int]]:
    """Everybody who was behind what was rebuilt, with their labels; -1 is none.

    Labels that are no people's, such as expressions, depend on the photos, and tell no places.
    """
    if reconstruction.of == "people":
        names = secret.portrayed
        classes = secret.portrayed_as or tuple(range(len(names)))
    else:
        names = secret.people[: secret.audited]
        known = secret.labels[: secret.audited].tolist()
        classes = tuple(known) if secret.portrayed_as else (-1,) * len(names)
    labels: dict[str, set[int]] = {}
    for person, label in zip(names, classes, strict=True):
        labels.setdefault(person, set()).add(label)
    return labels


def _closest(cosines: Tensor, guesses: Tensor, labels: set[int]) -> tuple[float, ...]:
    """Of reconstructions `[N, P]`, the highest cosine of those with these labels, else of all."""
    theirs = torch.isin(guesses.cpu(), torch.tensor([label for label in labels if label >= 0]))
    candidates = cosines[theirs] if bool(theirs.any()) else cosines
    return tuple(round(value, DIGITS) for value in candidates.max(0).values.tolist())
