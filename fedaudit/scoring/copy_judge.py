"""Copy detection: is this reconstruction that very image, rather than any other of its class?

Made for pictures that are no faces, so for any: no network says what matters in an X-ray, a digit
and a landscape alike. An image is what a band of spatial frequencies shows of it (no brightness,
contrast or shading; no grain), in the principal components of other images of the set, weighted as
a Wiener filter does: strong ones are evened out, so that what many images share does not decide,
and weak ones, where noise is louder than images, count little. `benchmarks/copy_detection.py`
compares it with raw pixels, SSIM and LPIPS.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fedaudit.core.seeds import generator_for
from fedaudit.core.source import FaceEmbedder
from fedaudit.data.crop import resize
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split
from fedaudit.scoring.copies import nearest_photos
from fedaudit.scoring.identity import Embed, pack

SIDE = 32
"""Pixels at which images are compared; larger ones are made smaller."""
FINE, COARSE = 1.4, 8.0
"""Standard deviations, in pixels at `SIDE`, of the Gaussians whose difference is the band."""
FLOOR = 100.0
"""Of the mean variance a pixel: the noise that components are weighted for. Band limits of 0 to 1.4
and 4 to 16 pixels and floors of 30 to 300 were tried on 616 tiles of ten of scikit-image's photos
at 32 px; these have the lowest false match rate of those that find 94.5 % and more in 20 dB
(`benchmarks/copy_detection.py` reports on other photos)."""
NOISE = 20.0
"""dB of the noise in the second probe of each image."""


@dataclass(frozen=True)
class CopyJudge:
    """Tells an image from the others of its class.

    Attributes:
        name: For reports.
        network: Has no weights: what it knows, it learns of a study's own pictures (`frame`).
    """

    name: str = "band-passed principal components"
    network: nn.Module = field(default_factory=nn.Identity)

    def frame(self, photos: Tensor) -> Tensor:
        """What it learns of pictures `[n, C, H, H]` that nobody attacks: `[1 + k, D]`.

        Their mean and, below it, weighted components.
        """
        seen = _band(photos)
        mean = seen.mean(0)
        _, singular, components = torch.linalg.svd(seen - mean, full_matrices=False)
        variance = singular.square() / len(seen)
        floor = FLOOR * variance.sum().clamp_min(1e-6) / seen.shape[1]
        weights = variance.sqrt() / (variance + floor)
        return torch.cat([mean[None], weights[:, None] * components])

    def within(self, frame: Tensor) -> Embed:
        """Unit vectors `[N, k]` of images of the set that `frame` was learned of."""
        mean, components = frame[0], frame[1:]
        return lambda images: normalize((_band(images) - mean) @ components.T, dim=1)


def copies() -> CopyJudge:
    """Copy detection for pictures that are no faces: is it that image, or another of its class?"""
    return CopyJudge()


def embed_pictures(faces: FaceSet, split: Split, judge: FaceEmbedder) -> dict[str, Tensor]:
    """What copies are judged by, as `fedaudit.scoring.identity.packed` makes it.

    The judge learns of the pictures that never train. Every picture that does is its own reference,
    and has two probes: itself, and itself in 20 dB of noise. So a threshold is calibrated on pairs
    of different images that the judge never saw, plain and noisy.
    """
    held_out = set(split.held_out)
    idle = [k for k, name in enumerate(faces.people) if name in held_out]
    frame = judge.frame(faces.images[idle])
    embed = judge.within(frame)
    others = [k for k, name in enumerate(faces.people) if name not in held_out]
    names = [faces.people[k] for k in others]
    plain = embed(faces.images[others])
    noisy = embed(torch.stack([add_noise(faces.images[k], NOISE, faces.people[k]) for k in others]))
    return pack(
        {name: plain[k : k + 1] for k, name in enumerate(names)},
        {name: torch.stack([plain[k], noisy[k]]) for k, name in enumerate(names)},
        nearest_photos(faces.images, faces.people),
        frame,
    )


def add_noise(image: Tensor, decibels: float, name: str) -> Tensor:
    """An image `[C, H, W]` in white noise at so many dB PSNR before it is cut to [0, 1]."""
    noise = torch.randn(image.shape, generator=generator_for("noisy probe", name))
    return torch.clamp(image + noise * float(10 ** (-decibels / 20)), 0, 1)


def _band(images: Tensor) -> Tensor:
    """`[N, C, H, H]` → `[N, D]`: unit vectors of what lies between two scales."""
    small = resize(images, SIDE) if images.shape[-1] > SIDE else images
    band = _blur(small, FINE) - _blur(small, COARSE)
    return normalize(band.flatten(1), dim=1)


def _blur(images: Tensor, sigma: float) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur  # noqa: PLC0415 - slow

    side = images.shape[-1]
    width_of_blur = sigma * side / SIDE
    width = min(2 * round(3 * width_of_blur) + 1, 2 * side - 1)  # what a mirrored edge gives
    result: Tensor = gaussian_blur(images, [width, width], [width_of_blur, width_of_blur])
    return result
