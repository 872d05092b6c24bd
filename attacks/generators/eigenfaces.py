"""What faces look like, as a Gaussian: the attacker's own faces, their mean and their main axes.

A network that standardizes tells nothing of brightness and contrast, and a prior over images that
are not standardized then prefers the mean face, faintly varied. So faces are standardized one by
one before they are counted, and drawn at the brightness and contrast that faces have.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.core.seeds import generator_for
from fedaudit.files.cache import key_of, load_or_learn


@dataclass(frozen=True)
class Eigenfaces:
    """Mean and principal axes of standardized faces (Turk & Pentland, CVPR 1991).

    Attributes:
        faces: `[M, c, H, W]` the attacker's faces in [0, 1]; one channel if gray.
        mean: `[c·H·W]` of the standardized faces.
        axes: `[k, c·H·W]` scaled, so that coordinates of faces have unit variance.
        brightness, contrast: Mean and mean deviation of the faces' pixels.
    """

    faces: Tensor
    mean: Tensor
    axes: Tensor
    brightness: float
    contrast: float

    @classmethod
    def of(cls, faces: Tensor, components: int) -> "Eigenfaces":
        """From `[M, c, H, W]` faces; at most `components` axes."""
        flat = faces.flatten(1)
        shape = standardize(flat)
        mean = shape.mean(0)
        away = (shape - mean) / math.sqrt(len(flat))
        # Of the smaller of the two products: a decomposition of the faces themselves takes longer.
        wide = flat.shape[1] > len(flat)
        spread, vectors = torch.linalg.eigh(away @ away.T if wide else away.T @ away)
        most = max(0, min(components, len(flat) - 1, flat.shape[1]))
        spread, vectors = spread.flip(0)[:most].clamp_min(0), vectors.flip(1)[:, :most]
        axes = vectors.T @ away if wide else vectors.T * spread.sqrt()[:, None]
        return cls(faces, mean, axes, float(flat.mean()), float(flat.std(1).mean()))

    @property
    def shapes(self) -> Tensor:
        """The faces, standardized: `[M, c·H·W]`."""
        return standardize(self.faces.flatten(1))

    def images(self, coordinates: Tensor, channels: int) -> Tensor:
        """Coordinates `[N, k]` → images `[N, channels, H, W]`; a few pixels may leave [0, 1]."""
        return self.draw(self.mean + coordinates @ self.axes, channels)

    def draw(self, shape: Tensor, channels: int) -> Tensor:
        """Standardized pixels `[N, c·H·W]` → images at the usual brightness and contrast."""
        flat = self.brightness + self.contrast * standardize(shape)
        return flat.view(-1, *self.faces.shape[1:]).expand(-1, channels, -1, -1)

    def coordinates(self, shape: Tensor) -> Tensor:
        """Standardized pixels `[N, c·H·W]` → coordinates `[N, k]`."""
        scales = self.axes.square().sum(1).clamp_min(1e-12)
        return (shape - self.mean) @ self.axes.T / scales


def standardize(flat: Tensor) -> Tensor:
    """Rows `[N, P]` at mean 0 and deviation 1 each."""
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp_min(1e-6)


def kept_faces(
    auxiliary: Auxiliary,
    count: int,
    shape: tuple[int, int, int],
    *,
    grayscale: bool,
    seed: int,
    cache: str | None,
) -> Tensor:
    """`[count, c, H, W]` of the attacker's faces, one channel if gray, from the cache if there.

    `cache` is a folder; None for the user's cache folder, "off" for none.
    """

    def draw() -> dict[str, Tensor]:
        faces = auxiliary.faces(
            count, shape, generator_for("eigenfaces", seed), grayscale=grayscale
        )
        faces = faces[:, :1] if grayscale else faces
        return {"faces": (faces * 255).round().to(torch.uint8)}

    key = key_of({}, ("eigenfaces", auxiliary.by_content(), count, shape, grayscale, seed))
    arrays = load_or_learn(
        key, draw, cache, what="the attacker's faces", photos=auxiliary.photos, valid=("faces",)
    )
    return arrays["faces"].float() / 255
