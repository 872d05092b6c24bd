"""Scores where the truth is known in part: more originals than rebuilt images, or none at all."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedaudit.core.capture import Secret
from fedaudit.core.trial import ImageScore
from fedaudit.scoring.identity import Embed, Gallery
from fedaudit.scoring.score import Judge


def match_originals(secret: Secret, images: Tensor) -> tuple[Secret, Tensor]:
    """Of more originals than rebuilt images `[N, C, H, W]`, those that these stand for, one each.

    The assignment has the least squared error in all, and never looks at the headline metric. The
    prior-only control chooses alike, so that what choice alone gives shows there.

    Returns:
        The truth of the N that were chosen, in the order of the images, and their indices.
    """
    everything = torch.arange(len(secret.images))
    if len(images) >= len(secret.images):
        return secret, everything
    error = torch.cdist(images.flatten(1).double(), secret.images.flatten(1).double()).square()
    indices = torch.from_numpy(linear_sum_assignment(error.numpy())[1])
    places = indices.tolist()
    return (
        replace(
            secret,
            images=secret.images[indices],
            labels=secret.labels[indices],
            people=tuple(secret.people[k] for k in places),
            sources=tuple(secret.sources[k] for k in places),
        ),
        indices,
    )


def search(
    images: Tensor,
    *,
    client: str,
    gallery: Gallery | None,
    embed: Embed | None,
    beside: Sequence[Judge] = (),
) -> tuple[ImageScore, ...]:
    """Scores of images `[N, 3, H, W]` whose originals nobody knows: the nearest of the gallery.

    Whether the nearest is the right one cannot be said; how often strangers match somebody is
    `Gallery.strangers`. Statistics are clustered by the client who sent the update.
    """
    blank = ImageScore(client)
    if gallery is None or embed is None:
        return (blank,) * len(images)
    embeddings = F.normalize(embed(images) - gallery.center, dim=1)
    best = (embeddings @ gallery.templates.T).max(1)
    scores = []
    others = [(judge, judge.embed(images)) for judge in beside]
    places = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    for k, (cosine, place) in enumerate(places):
        hit = None if gallery.threshold is None else cosine > gallery.threshold
        near = gallery.people[place]
        opinions = {
            judge.label: judge.opinion(vectors[k : k + 1], near)
            for judge, vectors in others
            if near in judge.gallery.people
        }
        scores.append(
            replace(blank, cosine=cosine, reidentified=hit, nearest=near, others=opinions)
        )
    return tuple(scores)
