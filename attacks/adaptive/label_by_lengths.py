"""The label of one photo, from the lengths of its orthogonalized gradients (CENSOR).

The label decides how long the layers' gradients are beside each other, and which way the last ones
point. So for each class a Gaussian is fitted to the logarithms of the parameters' lengths over
generated faces, with a covariance that all classes share (linear discriminant analysis, Fisher
1936); and the mean direction of their gradients is held against what was sent, which is at right
angles to the true one: as nearly as faces of one class agree. The class with the largest likelihood
is the label, and with it who was in front of the camera.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-6
"""Added to the covariance of logarithms, which are at least 1e-4 in every direction."""
SLACK = 0.1
"""Squared sine by which a photo's gradient is further from the mean than generated faces' are."""

Gradients = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""One image `[1, C, H, W]` and its label `[1]` → a tensor a parameter."""


def label_by_lengths(
    gradients: Gradients, sent: Sequence[Tensor], faces: Tensor, classes: int, *, scaled: bool
) -> int:
    """The likeliest class of the photo behind an update.

    Args:
        gradients: Of a dummy image and label.
        sent: What was sent of each parameter in every round, `[R, …]`, in a gradient's units.
        faces: `[n, C, H, W]` in [0, 1], n ≥ 2 generic ones; each is tried with every class.
        classes: K.
        scaled: The units are known; else one factor for all parameters is left open.
    """
    usable = [k for k, value in enumerate(sent) if value[0].numel() > 1]
    lengths, directions, agreement = [], [], []
    for label in range(classes):
        own = torch.tensor([label], device=faces.device)
        made = [[g.flatten() for g in gradients(face[None], own)] for face in faces]
        sizes = torch.stack([torch.stack([row[k].norm() for k in usable]) for row in made])
        means = [
            torch.stack([row[k] / (row[k].norm() + 1e-20) for row in made]).mean(0) for k in usable
        ]
        lengths.append((sizes + 1e-20).log().double())
        directions.append([F.normalize(mean, dim=0) for mean in means])
        agreement.append(torch.stack([mean.square().sum() for mean in means]))
    # Of each face with the mean of the others, without its own share in the mean.
    count = len(faces)
    sines = 1 - ((torch.stack(agreement).mean(0) * count - 1) / (count - 1)).clamp(0, 1)
    measured = torch.stack([(sent[k][0].norm() + 1e-20).log() for k in usable]).double()
    fits = _length_fits(torch.stack(lengths), measured, scaled=scaled)
    for label, means in enumerate(directions):
        for k, mean, sine in zip(usable, means, sines, strict=True):
            rows = F.normalize(sent[k].flatten(1), dim=1)
            fits[label] += float((rows @ mean).square().sum() * len(mean) / (sine + SLACK))
    return int(fits.argmin())


def _length_fits(lengths: Tensor, measured: Tensor, *, scaled: bool) -> Tensor:
    """Squared Mahalanobis distance `[K]` of `measured [P]` to each class, `lengths [K, n, P]`."""
    if not scaled:
        lengths = lengths - lengths.mean(2, keepdim=True)
        measured = measured - measured.mean()
    means = lengths.mean(1)
    within = (lengths - means[:, None]).flatten(0, 1)
    spread = within.T @ within / len(within)
    spread = spread + RIDGE * torch.eye(len(spread)).to(spread)
    apart = measured - means
    fits: Tensor = (apart * torch.linalg.solve(spread, apart.T).T).sum(1)
    return fits
