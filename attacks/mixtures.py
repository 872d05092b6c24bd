"""Photos mixed with others of their client: how they were mixed, and the photo behind the mixtures.

An update of one mixed image gives that image away like any other, and its head's gradient the
label, exactly: which people are in it and with which coefficients (`labels.mixed`). The people are
the client's all the same, but the round's own photo is one among equals. A client that trains on a
photo for several rounds mixes it anew each time: its person is the one who is there every time, and
what is added to the photo differs, so that it fades. Huang et al. (NeurIPS 2021, arXiv 2112.00059)
take mixtures apart that share photos, with coefficients that they know.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedaudit.defenses.acts import ImageAct

POOL = 16
"""Photos that an act is tried on."""
TRIES = 4
"""Draws of it."""
PRESENT = 0.02
"""Share of a mixture from which on a person counts as present."""
CLOSE = 1e-4
"""Largest difference of two images that rounding explains."""
ALONE = 1e-3
"""Least variance of what is mixed with a photo, in units of a face's: nothing is known exactly."""


def is_mixture(acts: Sequence[ImageAct], shape: tuple[int, int, int]) -> bool:
    """Whether the acts make of one photo, and of others, one weighted sum; labels with them.

    Found out by trying them on images and people of no client, each another one.

    Args:
        acts: For one photo, in order.
        shape: `(C, H, W)`.
    """
    seeded = torch.Generator().manual_seed(0)
    pool = torch.rand(POOL, *shape, generator=seeded)
    for seed in range(TRIES):
        images, labels = pool, torch.arange(POOL)
        generator = torch.Generator().manual_seed(seed)
        for act in acts:
            images, labels = act(images, labels, generator)
        if len(images) != 1 or labels.dim() != 2 or labels.shape[1] > POOL or labels[0, 0] <= 0:
            return False
        mixed = torch.einsum("k,kchw->chw", labels[0], pool[: labels.shape[1]])
        if float((images[0] - mixed).abs().max()) > CLOSE:
            return False
    return True


def photo_behind(mixed: Tensor, labels: Tensor, mean: Tensor) -> tuple[Tensor, int]:
    """The photo that all mixtures have in common, and its label; of one mixture its largest part.

    The most likely photo if faces scatter about the mean face alike and independently: least
    squares, each mixture weighted by how little else is in it. How faces scatter cancels out.

    Args:
        mixed: `[R, C, H, W]` mixed images, one a round.
        labels: `[R, K]` their class probabilities.
        mean: `[C, H, W]`, a mean face.

    Returns:
        `[C, H, W]` in [0, 1], and the label: of the person in most mixtures, and then with most.
    """
    rounds = (labels > PRESENT).sum(0)
    label = int((rounds + labels.mean(0)).argmax())
    own = labels[:, label]
    rest = (labels.square().sum(1) - own.square()).clamp_min(ALONE)
    weights = own / rest / (1 + (own.square() / rest).sum())
    found = mean + torch.einsum("r,rchw->chw", weights, mixed - mean)
    return found.clamp(0, 1), label
