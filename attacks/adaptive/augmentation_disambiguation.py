"""Augmentation disambiguation: which of a photo's copies (OASIS) is the photo.

Where the copies of a copy are the same images again (quarter turns, mirroring), each explains the
update as well as the photo does. What tells them apart is what faces look like: kernel ridge
regression on the size and direction of edges, of the attacker's own faces and their copies.
(Brightness does not tell: a bright brow above a dark chin is a dark brow upside down.) The ridge is
the one under which faces that are left out, with all of their copies, are told best.

`benchmarks/augmented_copies.py` chose the numbers below, on the 400 photos of ORL at 32 px.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.changed_photos import change
from fedaudit.attacks.adaptive.defense_adaptation import Attacker, DefenseAdaptation, Rounds
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.data.crop import LUMINANCE
from fedaudit.defenses.gradient_transforms import ImageTransform

FACES = 3000
"""Of the attacker's, whose copies are learned from: some 15 s of drawing, once a process."""
CENTERS = 1000
"""Of these images, to which others are compared."""
SIDE = 32
"""Pixels at which images are looked at; which way is up shows in few."""
PART = 500
"""Faces that are copied at a time."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Shares of an image's own likeness, 1, that may be chance."""
ROUNDING = 1e-5
"""Of the largest eigenvalue of the likeness of centers: what single precision does not tell."""
SAME = 1e-4
"""Largest difference of pixels up to which two images are the same."""


def copies(transforms: Sequence[ImageTransform], number: int) -> DefenseAdaptation:
    """What to do where `number` ≥ 2 images are made of each photo by `transforms`."""
    return DefenseAdaptation(
        name="copies",
        read=partial(_photo_by_photo, number),
        reveal=partial(_photos_among_copies, transforms),
    )


def _photo_by_photo(
    number: int, reading: Reading, head: HeadGradient | None, rounds: Rounds
) -> Reading:
    """The reading of photos in place of all their copies, whose maps are of no photo."""
    del head, rounds
    count, labels, first_fc = max(1, reading.count // number), reading.labels, reading.first_fc
    return replace(
        reading,
        count=count,
        labels=None if labels is None else labels.sort().values[::number][:count],
        first_fc=first_fc and replace(first_fc, maps=None, upstream=None),
    )


def _photos_among_copies(
    transforms: Sequence[ImageTransform],
    images: Tensor,
    labels: Tensor,
    reading: Reading,
    attacker: Attacker,
) -> tuple[Tensor, Tensor]:
    """Of copies that explain as much, the photos; to an attack that has faces to learn from."""
    del reading
    photos = (
        images if attacker.source is None else disambiguate(transforms, images, attacker.source)
    )
    return photos, labels


@dataclass(frozen=True)
class Copying:
    """Deterministic transforms that copy a photo; equal if their copies of an image are."""

    transforms: Sequence[ImageTransform] = field(compare=False)
    shape: tuple[int, int, int]
    which: tuple[int, ...] = field(init=False)
    makes: str = field(init=False)

    def __post_init__(self) -> None:
        image = torch.rand(1, *self.shape, generator=torch.Generator().manual_seed(0))
        copies = self.all(image)
        same = [k for k in range(len(copies)) if not k or _same(copies, self.all(copies[k][None]))]
        object.__setattr__(self, "which", tuple(same))
        digest = hashlib.sha256(copies.contiguous().numpy().tobytes())
        object.__setattr__(self, "makes", digest.hexdigest())

    def all(self, image: Tensor) -> Tensor:
        """The photo `[1, C, H, W]` and its copies."""
        nobody = torch.zeros(1, dtype=torch.long, device=image.device)
        with torch.no_grad():
            return change(self.transforms, image, nobody, 0)[0]

    def alike(self, image: Tensor) -> Tensor:
        """Which of the copies have the same set of copies as the photo, itself first."""
        return self.all(image[None])[list(self.which)]


@dataclass(frozen=True)
class OrientationScore:
    """How much an image looks like a face that is the right way up.

    Args:
        centers: `[m, ·]`, edges of images.
        width: Squared distance at which likeness is 1/e.
        factors: `[m]`, what likeness to each counts.
    """

    centers: Tensor
    width: Tensor
    factors: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """`[N]` of `[N, C, H, W]`."""
        return _likeness(_edges(images), self.centers, self.width) @ self.factors


def disambiguate(transforms: Sequence[ImageTransform], images: Tensor, source: str) -> Tensor:
    """The photos, of images `[N, C, H, W]` in [0, 1] that are either photos or their copies.

    `transforms` make the copies and must draw nothing; the attacker's own faces come from `source`.
    """
    copying = Copying(transforms, (images.shape[1], images.shape[2], images.shape[3]))
    if len(copying.which) == 1:
        return images
    judge = learn_score(copying, source)
    every = [copying.alike(image) for image in images]
    return torch.stack([copies[int(judge(copies.cpu()).argmax())] for copies in every])


@lru_cache(maxsize=2)
def learn_score(
    copying: Copying, source: str = "face_gan", faces: int = FACES, centers: int = CENTERS
) -> OrientationScore:
    """The orientation score, fitted to copies of the attacker's own faces; deterministic.

    Kernel ridge regression by at most `centers` of the images as centers (Williams & Seeger,
    NeurIPS 2000).
    """
    generator = torch.Generator().manual_seed(0)
    channels, *size = copying.shape
    shape = (channels, *_fitting((size[0], size[1])))
    pool = Auxiliary(source=source).faces(faces, shape, generator, grayscale=True)
    parts = torch.split(pool, PART)
    edges = torch.cat([_edges(torch.cat([copying.alike(face) for face in part])) for part in parts])
    answer = torch.full((faces, len(copying.which)), -1 / len(copying.which))
    answer[:, 0] += 1
    middle = edges[torch.randperm(len(edges), generator=generator)[:centers]]
    apart = torch.cdist(middle, middle).square()
    width = apart.median().clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(torch.exp(-apart / width).double())
    strong = values > ROUNDING * values[-1]
    basis = (vectors[:, strong] / values[strong].sqrt()).float()
    factors, _ = fit_ridge(_likeness(edges, middle, width) @ basis, answer)
    return OrientationScore(middle, width, basis @ factors)


def fit_ridge(
    rows: Tensor, answer: Tensor, ridges: Sequence[float] = RIDGES
) -> tuple[Tensor, Tensor]:
    """Ridge regression whose penalty has the least leave-one-group-out error, in closed form.

    In closed form, from one decomposition for all ridges: the errors on a group that is left out
    are those on the group within, enlarged by what the group says of itself. `rows` are `[n·k, d]`
    in the order of the answers `[n, k]`, of n groups.

    Returns:
        The factors, `[d]`; the mean squared error of each ridge on groups that are left out.
    """
    values, vectors = torch.linalg.eigh((rows.T @ rows).double())
    coordinates = rows @ vectors.to(rows)
    sums, groups = coordinates.T @ answer.flatten(), coordinates.view(*answer.shape, -1)
    itself = torch.eye(answer.shape[1]).to(rows)
    solutions, errors = [], []
    for ridge in ridges:
        shrunk = 1 / (values.clamp_min(0) + ridge).to(rows)
        within = answer - (coordinates @ (shrunk * sums)).view_as(answer)
        own = (groups * shrunk) @ groups.transpose(1, 2)
        solutions.append(vectors.to(rows) @ (shrunk * sums))
        errors.append(torch.linalg.solve(itself - own, within).square().mean())
    return solutions[int(torch.stack(errors).argmin())], torch.stack(errors)


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """The size at which images are looked at."""
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _small(images: Tensor) -> Tensor:
    """Gray and at most `SIDE` pixels large."""
    weights = LUMINANCE if images.shape[1] == 3 else (1 / images.shape[1],) * images.shape[1]
    gray = (images * images.new_tensor(weights).view(1, -1, 1, 1)).sum(1, keepdim=True)
    size = _fitting((images.shape[2], images.shape[3]))
    return F.interpolate(gray, size, mode="bilinear", antialias=True)


def _likeness(edges: Tensor, centers: Tensor, width: Tensor) -> Tensor:
    return torch.exp(-torch.cdist(edges, centers).square() / width)


def _same(one: Tensor, two: Tensor) -> bool:
    """Whether two sets of images are the same, in whatever order."""
    if len(one) != len(two):
        return False
    apart = (one[:, None] - two[None]).abs().flatten(2).amax(2)
    return bool((apart.min(0).values < SAME).all() and (apart.min(1).values < SAME).all())


def _edges(images: Tensor) -> Tensor:
    """Edges and directions of an image or its mirror image, `[N, ·]`; light hardly matters."""
    gray = _small(images)
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
