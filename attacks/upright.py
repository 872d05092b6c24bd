"""Which of a photo's copies is the photo.

Where copies train beside a photo, and the copies of a copy are the same images again (quarter
turns, mirroring), each of them explains the update as well as the photo does: the search ends at
any. What tells them apart is what faces look like, which the attacker has faces for: kernel ridge
regression on the size and direction of their edges, of the attacker's own faces and their copies.
(Brightness does not tell: a bright brow above a dark chin is a dark brow upside down.)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.changed_photos import changed
from fedaudit.defenses.acts import ImageAct

FACES = 600
"""Of the attacker's, whose copies are learned from."""
RIDGE = 0.02
SAME = 1e-4
"""Largest difference of pixels up to which two images are the same."""
SIGNED = 0.7
"""Weight of an edge's direction beside its size."""


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
        kernel = torch.exp(-apart / width) + RIDGE * torch.eye(len(apart)).to(apart)
        factors = torch.linalg.solve(kernel, answer.flatten())
        found = []
        for image in images:
            copies = _copies(acts, image[None])[list(which)]
            near = torch.exp(-torch.cdist(_edges(copies), known).square() / width)
            found.append(copies[int((near @ factors).argmax())])
    return torch.stack(found)


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
    """Where an image has edges, and which way they go, `[N, ·]`; light hardly matters."""
    gray = images.mean(1, keepdim=True)
    across = gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2]
    down = gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]
    sizes = _even([across.abs(), down.abs()])
    ways = _even([part.clamp_min(0) for part in (across, -across, down, -down)])
    return torch.cat([sizes, SIGNED * ways], 1)


def _even(parts: Sequence[Tensor]) -> Tensor:
    """Parts of an image, coarse, at mean 0 and deviation 1."""
    flat = torch.cat([F.avg_pool2d(part, 3, 2) for part in parts], 1).flatten(1).sqrt()
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp_min(1e-6)
