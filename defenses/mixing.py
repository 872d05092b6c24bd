"""Images mixed with others of the same client, and their labels with them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import DataError
from fedaudit.defenses.gradient_transforms import ImageTransform, Replayed
from fedaudit.defenses.on_photos import on_photos
from fedaudit.models.soft_labels import probabilities

Weights = Callable[[int, int, torch.Generator], Tensor]
"""Number of mixed images N, images in each k → `[N, k]` that sum to 1."""


def mixing(
    parts: int, weights: Weights, *, made: int | None = None, flip: bool = False
) -> ImageTransform:
    """Mix each of the first `made` images with parts − 1 others, drawn without repetition.

    Args:
        parts: Images in each mixed one; where there are fewer, as many as there are.
        weights: Draws the coefficients.
        made: Number of mixed images; None makes one of each.
        flip: Turn each value into its negative with probability one half, as InstaHide does to
            images in [-1, 1]: to images in [0, 1], x becomes 1 − x.
    """

    def transform(
        images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        count = len(images) if made is None else min(made, len(images))
        with_whom = partners(count, len(images), min(parts, len(images)), generator)
        shares = weights(count, with_whom.shape[1], generator).to(images)
        with_whom = with_whom.to(images.device)
        mixes = torch.einsum("nk,nkchw->nchw", shares, images[with_whom])
        soft = torch.einsum("nk,nkl->nl", shares, probabilities(labels).to(shares)[with_whom])
        if flip:
            positive = torch.randint(2, mixes.shape, generator=generator).bool().to(images.device)
            mixes = torch.where(positive, mixes, 1 - mixes)
        return mixes, soft

    return transform


def with_others(
    step: ClientStep, replay: Callable[[int], Replayed], parts: int, name: str
) -> ClientStep:
    """The client's step on mixtures of its photos with each other and with its others.

    It refuses DP-SGD, and clients with fewer photos than `parts`; messages name the defense.

    Args:
        step: The client's.
        replay: Of the defense: how many images are made → the transform, on photos and others.
        parts: Images that each mixed one needs.
        name: Of the defense.
    """

    def guarded(task: ClientTask) -> ClientReturn:
        pool, labels = pool_of(task)
        if len(pool) < parts:
            raise DataError(
                f"{name} mixes {parts} photos with labels into one, and this client has "
                f"{len(pool)}. Lower parts, or raise [federation] photos or batch_size."
            )

        def mix(images: Tensor, own: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            mine = (pool, labels) if images is task.images else (images, own)
            return replay(len(images)).images[0](*mine, generator)

        return on_photos(step, mix, several=name)(task)

    return guarded


def partners(count: int, total: int, parts: int, generator: torch.Generator) -> Tensor:
    """`[count, parts]` of `total` images: each of the first ones, then other ones."""
    order = torch.rand(count, total, generator=generator)
    own = torch.arange(count)
    order[own, own] = -1  # first
    return order.argsort(1)[:, :parts]


def dirichlet(concentration: float) -> Weights:
    """Coefficients from a symmetric Dirichlet distribution: a beta distribution for two."""

    def weights(count: int, parts: int, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (1,), generator=generator))
        sample = np.random.default_rng(seed).dirichlet([concentration] * parts, count)
        return torch.from_numpy(sample).float()

    return weights


def half_normal(parts: int, largest: float) -> Weights:
    """Sizes of normal numbers, divided by their sum, drawn until none is above `largest`.

    The bound is for `parts` images; fewer may not be able to keep it.
    """

    def weights(count: int, terms: int, generator: torch.Generator) -> Tensor:
        bound = largest if terms == parts else 1.0
        shares = torch.full((count, terms), 2.0)
        while len(left := (shares.amax(1) > bound + 1e-6).nonzero().flatten()):
            sample = torch.randn(len(left), terms, generator=generator).abs()
            shares[left] = sample / sample.sum(1, keepdim=True)
        return shares

    return weights


def pool_of(task: ClientTask) -> tuple[Tensor, Tensor]:
    """The round's photos, then the client's others, and the labels of all."""
    others, theirs = task.others, task.other_labels
    if others is None or theirs is None or not len(others):
        return task.images, task.labels
    images = torch.cat([task.images, others])
    if task.labels.dim() == 1:
        return images, torch.cat([task.labels, theirs])
    wide = max(task.labels.shape[1], int(theirs.max()) + 1)
    return images, torch.cat([probabilities(task.labels, wide), probabilities(theirs, wide)])
