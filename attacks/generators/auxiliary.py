"""The attacker's own faces: generated ones, 100 real ones, a user's folder; strongly varied.

A network trained on a generator's faces learns its framing and light as well. So every face is seen
through another camera each time: crop, shift, turn, scale, mirror, contrast, gamma, side light.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.generators.face_generator import crop_images
from fedaudit.data.crop import LUMINANCE
from fedaudit.data.folder import folder
from fedaudit.data.lfw_subset import lfw_subset
from fedaudit.files.cache import digest_of
from fedaudit.models.generator import load_generator

CANVAS = 64
"""Side in pixels at which faces are drawn and varied, where the attacked images are not larger."""
# Set by hand; what it reaches is measured by benchmarks/learned_inversion.py.
REAL_SHARE = 0.15
"""Of the faces, how many are real photos; the rest is generated."""
PART = 256


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """The attacker's auxiliary faces: generated, bundled or of a folder, and how they vary.

    Args:
        source: A face generator, as in `FaceGenerator`.
        photos: A folder of the user's, one folder a person; None for none.
        real: Mix in the 100 real faces that come with scikit-image.
    """

    source: str = "face_gan"
    photos: str | None = None
    real: bool = True

    def by_content(self) -> "Auxiliary":
        """The same with hashes of files and folders in place of their paths, for keys of caches."""
        source = Path(self.source).expanduser()
        photos = None if self.photos is None else digest_of(Path(self.photos).expanduser())
        return replace(
            self, source=digest_of(source) if source.is_file() else self.source, photos=photos
        )

    def faces(
        self,
        count: int,
        shape: tuple[int, int, int],
        generator: torch.Generator,
        *,
        grayscale: bool,
    ) -> Tensor:
        """`[count, C, H, W]` in [0, 1], all different, in random order; all gray, or half of them.

        Raises:
            AssetError: The generator is neither cached nor fetchable.
            DataError: The user's folder cannot be read.
        """
        side = max(CANVAS, *shape[1:])
        photographs = []
        if self.real:
            photographs.append(lfw_subset(size=side).images)
        if self.photos is not None:
            photographs.append(folder(path=self.photos, size=side).images)
        network = load_generator(self.source)
        parts = []
        for start in range(0, count, PART):
            size = min(PART, count - start)
            with torch.no_grad():
                faces = network(torch.randn(size, network.latent_dim, generator=generator))
                faces = _square(faces, network.crop, side)
                real = torch.rand(size, generator=generator) < REAL_SHARE
                if photographs and bool(real.any()):
                    pool = torch.cat(photographs)
                    choice = torch.randint(len(pool), (size,), generator=generator)
                    faces = torch.where(real[:, None, None, None], pool[choice], faces)
                parts.append(_as_shape(vary(faces, generator), shape, grayscale, generator))
        return torch.cat(parts)


def vary(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Each face through another camera and under another light; `[N, 3, S, S]` in [0, 1]."""
    count = len(faces)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, scale, stretch = uniform(-0.15, 0.15), uniform(0.72, 1.05), uniform(-0.08, 0.08)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    placements = torch.stack(
        [
            torch.stack([cos * (1 + stretch) * mirror, -sin, uniform(-0.14, 0.14)], 1),
            torch.stack([sin * mirror, cos * (1 - stretch), uniform(-0.14, 0.18)], 1),
        ],
        1,
    )
    grid = F.affine_grid(placements, list(faces.shape), align_corners=False)
    views = F.grid_sample(faces, grid, padding_mode="border", align_corners=False)
    # Generators draw softer than cameras: some faces are sharpened.
    soft = F.avg_pool2d(views, 3, 1, 1, count_include_pad=False)
    views = views + uniform(0, 1.5)[:, None, None, None] * (views - soft)
    direction = uniform(0, 2 * math.pi)
    ramp = torch.linspace(-1, 1, faces.shape[-1])
    light = (
        direction.cos()[:, None, None] * ramp[None, None, :]
        + direction.sin()[:, None, None] * ramp[None, :, None]
    )
    light = 1 + uniform(0, 0.45)[:, None, None] * light
    gamma = uniform(-0.7, 0.4).exp()[:, None, None, None]
    lit = (views.clamp(1e-3, 1) ** gamma) * light[:, None]
    middle = lit.mean((1, 2, 3), keepdim=True)
    contrast = uniform(0.7, 1.35)[:, None, None, None]
    brightness = uniform(-0.1, 0.2)[:, None, None, None]
    return ((lit - middle) * contrast + middle + brightness).clamp(0, 1)


def _square(images: Tensor, crop: tuple[float, float, float, float], side: int) -> Tensor:
    """A generator's images, cropped, three channels, `side` pixels."""
    images = crop_images(images, crop)
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def _as_shape(
    faces: Tensor, shape: tuple[int, int, int], grayscale: bool, generator: torch.Generator
) -> Tensor:
    """Resized with antialiasing to `shape`, gray where wanted."""
    channels, height, width = shape
    faces = F.interpolate(faces, (height, width), mode="bilinear", antialias=True)
    gray = (faces * faces.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if channels == 1:
        return gray.clamp(0, 1)
    is_gray = torch.rand(len(faces), generator=generator) < (1.0 if grayscale else 0.5)
    return torch.where(is_gray[:, None, None, None], gray, faces).clamp(0, 1)
