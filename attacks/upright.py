"""Which of a photo's copies is the photo.

Where copies train beside a photo, and the copies of a copy are the same images again (quarter
turns, mirroring), each of them explains the update as well as the photo does: the search ends at
any. What tells them apart is what faces look like, which the attacker has faces for: kernel ridge
regression on the size and direction of their edges, of the attacker's own faces and their copies.
(Brightness does not tell: a bright brow above a dark chin is a dark brow upside down.) All that it
is fitted by is the attacker's own: the ridge is the one under which faces that are left out, with
all of their copies, are told best.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.changed_photos import changed
from fedaudit.defenses.acts import ImageAct

FACES = 500
"""Of the attacker's, whose copies are learned from: what a second of computing allows."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Shares of an image's own likeness, 1, that may be chance."""
SAME = 1e-4
"""Largest difference of pixels up to which two images are the same."""


def alike(acts: Sequence[ImageAct], shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Numbers of the copies that have the same copies as the photo; 0 is the photo itself."""
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        copies = _copies(acts, image)
        return tuple(
            k for k in range(len(copies)) if not k or _same(copies, _copies(acts, copies[k][None]))
        )


def upright(acts: Sequence[ImageAct], images: Tensor, faces: Tensor) -> Tensor:
    """The photos, of images `[N, C, H, W]` in [0, 1] that are either photos or their copies.

    Args:
        acts: What makes the copies; they must draw nothing.
        images: What was found.
        faces: `[n, C, H, W]` in [0, 1], the attacker's own, the right way up.
    """
    which = alike(acts, (images.shape[1], images.shape[2], images.shape[3]))
    if len(which) == 1:
        return images
    with torch.no_grad():
        learned = torch.cat([_copies(acts, face[None])[list(which)] for face in faces])
        answer = learned.new_full((len(faces), len(which)), -1 / len(which))
        answer[:, 0] += 1
        known = _edges(learned)
        apart = torch.cdist(known, known).square()
        width = apart.median().clamp_min(1e-12)
        factors = fitted(torch.exp(-apart / width), answer)[0]
        found = []
        for image in images:
            copies = _copies(acts, image[None])[list(which)]
            near = torch.exp(-torch.cdist(_edges(copies), known).square() / width)
            found.append(copies[int((near @ factors).argmax())])
    return torch.stack(found)


def fitted(
    kernel: Tensor, answer: Tensor, ridges: Sequence[float] = RIDGES
) -> tuple[Tensor, Tensor]:
    """Kernel ridge regression under the ridge that tells groups best which it was not fitted to.

    In closed form, from one decomposition for all ridges: the errors on a group that is left out
    are what the solution has of it, through the group's block of the inverse.

    Args:
        kernel: `[n·k, n·k]`, positive semidefinite; rows in the order of the answers.
        answer: `[n, k]`, of n groups that are left out one at a time.
        ridges: That are added to the kernel's diagonal, > 0.

    Returns:
        The factors of the kernel's rows, `[n·k]`; the mean squared error of each ridge on groups
        that are left out, `[len(ridges)]`.
    """
    values, vectors = torch.linalg.eigh(kernel)
    solutions, errors = [], []
    for ridge in ridges:
        inverse = vectors / (values.clamp_min(0) + ridge)
        solution = inverse @ (vectors.T @ answer.flatten())
        rows, columns = (part.view(*answer.shape, -1) for part in (inverse, vectors))
        blocks = rows @ columns.transpose(1, 2)
        error = torch.linalg.solve(blocks, solution.view_as(answer))
        solutions.append(solution)
        errors.append(error.square().mean())
    return solutions[int(torch.stack(errors).argmin())], torch.stack(errors)


def _copies(acts: Sequence[ImageAct], image: Tensor) -> Tensor:
    nobody = torch.zeros(1, dtype=torch.long, device=image.device)
    return changed(acts, image, nobody, 0)[0]


def _same(one: Tensor, two: Tensor) -> bool:
    """Whether two sets of images are the same, in whatever order."""
    if len(one) != len(two):
        return False
    apart = (one[:, None] - two[None]).abs().flatten(2).amax(2)
    return bool((apart.min(0).values < SAME).all() and (apart.min(1).values < SAME).all())


def _edges(images: Tensor) -> Tensor:
    """Where an image or its mirror image has edges, and which way they go, `[N, ·]`.

    Light hardly matters, and which side a face turns to says nothing of where it is up.
    """
    gray = images.mean(1, keepdim=True)
    return (_features(gray) + _features(gray.flip(3))) / 2


def _features(gray: Tensor) -> Tensor:
    across = gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2]
    down = gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]
    sizes = _even([across.abs(), down.abs()])
    ways = _even([part.clamp_min(0) for part in (across, -across, down, -down)])
    return torch.cat([sizes, ways], 1)


def _even(parts: Sequence[Tensor]) -> Tensor:
    """Parts of an image, coarse, at mean 0 and deviation 1."""
    flat = torch.cat([F.avg_pool2d(part, 3, 2) for part in parts], 1).flatten(1).sqrt()
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp_min(1e-6)
