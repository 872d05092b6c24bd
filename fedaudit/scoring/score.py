"""From a reconstruction and the truth to one row of scores: the only place where both meet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedaudit.core.capture import Secret
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.trial import ImageScore, Opinion
from fedaudit.scoring.copies import NO_CALIBRATION
from fedaudit.scoring.identity import Embed, Gallery
from fedaudit.scoring.metrics import measure
from fedaudit.scoring.pairing import labels_recovered, pair


@dataclass(frozen=True)
class Judge:
    """A network that recognizes faces, and the gallery that it is calibrated on.

    Attributes:
        label: Its name in the study.
    """

    label: str
    gallery: Gallery
    embed: Embed

    def opinion(self, embedding: Tensor, person: str) -> Opinion:
        """The judge's scores of one image's embedding `[1, D]` against a person of its gallery."""
        cosine, rank = self.gallery.compare(embedding, person)
        threshold = self.gallery.threshold
        hit = None if threshold is None else float(cosine) > threshold
        return Opinion(float(cosine), hit, int(rank))


def score(
    secret: Secret,
    reconstruction: Reconstruction,
    *,
    gallery: Gallery | None,
    embed: Embed | None,
    wrong_person: str | None = None,
    beside: Sequence[Judge] = (),
    originals: Embed | None = None,
) -> tuple[tuple[ImageScore, ...], float | None, Tensor]:
    """Pair reconstructions with originals, measure and identify them.

    Args:
        secret: The truth.
        reconstruction: What the attack returned; its images are clamped to [0, 1].
        gallery: Reference photos and threshold; None for a set without identities. Somebody who
            is not in it is not identified.
        embed: The embedder that made the gallery, called once, on all images in the attack's order;
            None where it is not available.
        wrong_person: Person of another target, for the wrong-client control; of no use where the
            gallery does not have them.
        beside: The other judges, whose opinions stand beside the first one's.
        originals: The embedder again, for the originals: whether the judge knows those; None where
            that is not asked.

    Returns:
        A score per audited original (`Secret.audited`), the share of labels recovered, and their
        images in the originals' order. All images of the update are paired first: an attack is not
        told which of them are audited.
    """
    images = reconstruction.images.clamp(0, 1)
    embeddings = embed(images) if embed and gallery else None
    truth = _people(secret, reconstruction) if reconstruction.of == "people" else secret
    copies = gallery.copies if gallery else NO_CALIBRATION
    # A portrait is a mean of photos, and the one that its label chose: there are no copies of it.
    psnr = copies.psnr if reconstruction.of == "photos" else float("inf")
    order = pair(truth.images, truth.labels, images, reconstruction.labels, psnr)
    count = secret.audited if reconstruction.of == "photos" else None
    images, truths = images[list(order)][:count], truth.images[:count]
    metrics = measure(truths, images)
    scores = []
    scored = set(truth.people[:count])
    unscored = tuple(dict.fromkeys(p for p in secret.people if p not in scored))
    others = [(judge, judge.embed(images)) for judge in beside]
    ceiling = originals(truths) if originals and gallery and gallery.threshold is not None else None
    for k, person in enumerate(truth.people[:count]):
        cosine, rank, hit, wrong, known = None, None, None, None, None
        if gallery and embeddings is not None and person in gallery.people:
            mine = embeddings[order[k] : order[k] + 1]
            own, place = gallery.compare(mine, person)
            cosine, rank = float(own), int(place)
            if gallery.threshold is not None:
                hit = cosine > gallery.threshold
                if ceiling is not None:
                    best, _ = gallery.compare(ceiling[k : k + 1], person)
                    known = float(best) > gallery.threshold
                if wrong_person in gallery.people and wrong_person != person:
                    other, _ = gallery.compare(mine, wrong_person)
                    wrong = float(other) > gallery.threshold
        opinions = {
            judge.label: judge.opinion(vectors[k : k + 1], person)
            for judge, vectors in others
            if person in judge.gallery.people
        }
        shot = ImageScore(person, metrics[k], cosine, hit, rank, wrong, others=opinions)
        scores.append(replace(shot, original=known, beside=unscored))
    labels = None  # who a template is of is known, not recovered
    if reconstruction.of == "photos" and bool((secret.labels >= 0).any()):
        # An attack answers with the photos, or with all images that a client made of them; many
        # guesses at few labels would all seem right.
        more = len(reconstruction.labels) > len(secret.labels)
        true = secret.behind if more and secret.behind is not None else secret.labels
        labels = labels_recovered(true, reconstruction.labels)
    return tuple(scores), labels, images


def _people(secret: Secret, reconstruction: Reconstruction) -> Secret:
    """One portrait a reconstruction: of the person whom its label names, else whom it looks like.

    "Looks like" is by squared error, never by the identity cosine that is reported. A label that is
    none of the client's classes names nobody.
    """
    assert secret.portraits is not None  # captures with templates have them
    classes = torch.arange(len(secret.portraits))
    labels = torch.tensor(secret.portrayed_as) if secret.portrayed_as else classes
    fits = reconstruction.labels[:, None].cpu() == labels
    match = torch.where(fits.any(1), fits.int().argmax(1), -1)
    images = reconstruction.images.clamp(0, 1)
    if bool((match < 0).any()):
        error = torch.cdist(images.flatten(1).double(), secret.portraits.flatten(1).double())
        error[:, match[match >= 0]] = float("inf")
        match[match < 0] = torch.from_numpy(linear_sum_assignment(error[match < 0].numpy())[1])
    indices = classes[match].tolist()
    return replace(
        secret,
        images=secret.portraits[indices],
        labels=reconstruction.labels,
        people=tuple(secret.portrayed[k] for k in indices),
    )
