"""Mixtures of photos: draws of them, their coefficients, and the photo that several have in common.

The arithmetic is that of Gaussians. A client's photos scatter about the client's own mean, and that
mean about the mean face of the attacker. How faces scatter, pixel with pixel, cancels out: what is
left is one small matrix, of how rounds go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.defenses.gradient_transforms import ImageTransform

POOL = 16
"""Photos that a transform is tried on."""
PRESENT = 0.02
"""Share of a mixture from which on a person counts as present."""
ALONE = 1e-3
"""Least variance of what is mixed with a photo, in units of a face's: nothing is known exactly."""
SHIFT = 0.2
"""Variance of a client's mean face about the attacker's, in units of a face's: that of real faces
about generated ones (`benchmarks/mixture_bound.py`)."""


@dataclass(frozen=True)
class Drawn:
    """One draw of mixing transforms on a pool of images of different people.

    Attributes:
        images: `[N, C, H, W]`, from the first photo.
        labels: `[N, K]` class probabilities, or `[N]`.
        sums: `[N, C, H, W]` of the photos weighted by `labels`; None without such.
    """

    images: Tensor
    labels: Tensor
    sums: Tensor | None


def drawn_on(transforms: Sequence[ImageTransform], shape: tuple[int, int, int], seed: int) -> Drawn:
    """The transforms for one photo, tried with draws of `seed` on images of no client."""
    pool = torch.rand(POOL, *shape, generator=torch.Generator().manual_seed(0))
    return drawn_from(transforms, pool, torch.Generator().manual_seed(seed))


def drawn_from(
    transforms: Sequence[ImageTransform], pool: Tensor, generator: torch.Generator
) -> Drawn:
    """The transforms for one photo, the first of `pool` `[M, C, H, W]`."""
    images, labels = pool, torch.arange(len(pool))
    for transform in transforms:
        images, labels = transform(images, labels, generator)
    if labels.dim() != 2 or labels.shape[1] > len(pool):
        return Drawn(images, labels, None)
    sums = torch.einsum("nk,kchw->nchw", labels, pool[: labels.shape[1]])
    return Drawn(images, labels, sums)


@dataclass(frozen=True)
class Coefficients:
    """Those of the photo that several mixtures have in common.

    Attributes:
        label: Of its person: in most mixtures, and then with most.
        own: `[R]`, the photo's.
        rest: `[R]`, sums of the squares of all others.
    """

    label: int
    own: Tensor
    rest: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> "Coefficients":
        """From the mixtures' class probabilities, `[R, K]`."""
        rounds = (labels > PRESENT).sum(0)
        label = int((rounds + labels.mean(0)).argmax())
        own = labels[:, label]
        return cls(label, own, (labels.square().sum(1) - own.square()).clamp_min(0))


def photo_behind(mixed: Tensor, shares: Coefficients, mean: Tensor) -> Tensor:
    """The likeliest photo `[C, H, W]` in [0, 1] behind mixed images `[R, C, H, W]`, one a round.

    `shares` are the photo's; of one mixture its largest part is given. `mean` is a mean face.
    """
    with_photo = (shares.own + SHIFT).to(mixed)
    weights = torch.linalg.solve(together(shares.own, shares.rest).to(mixed), with_photo)
    return (mean + torch.einsum("r,rchw->chw", weights, mixed - mean)).clamp(0, 1)


def expect(mixed: Tensor, own: Tensor, rest: Tensor, mean: Tensor) -> Tensor:
    """What to expect of each mixture by the others, `[S, R, C, H, W]`.

    `mixed` are S photos in R rounds each, as far as they are known; `own` and `rest` `[S, R]` as in
    `Coefficients`; `mean` a mean face in the same units.
    """
    precision = torch.linalg.inv(together(own, rest).to(mixed))
    own_precision = precision.diagonal(dim1=1, dim2=2)
    weights = torch.diag_embed(own_precision) - precision
    weights = weights / own_precision[:, :, None]
    return mean + torch.einsum("srq,sqchw->srchw", weights, mixed - mean)


def together(own: Tensor, rest: Tensor) -> Tensor:
    """Covariance of mixtures in units of a face's variance, `[…, R]` each → `[…, R, R]`."""
    covariance = own[..., :, None] * own[..., None, :] + SHIFT
    return covariance + torch.diag_embed(rest.clamp_min(ALONE))
