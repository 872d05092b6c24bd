"""Expressiveness of a prior: how close a search of its latents comes to given photos."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FittedGenerator
from fedaudit.scoring.image_metrics import PSNR

_STAY = 1e-4
"""Weight of |z|²/dim: the search stays where the generator was trained."""
_PART = 16


@dataclass(frozen=True)
class BestFits:
    """The images of a prior that are closest to photos.

    Attributes:
        images: `[N, C, H, W]` in [0, 1].
        psnr: `[N]` in dB.
    """

    images: Tensor
    psnr: Tensor


def express(
    faces: FittedGenerator,
    photos: Tensor,
    *,
    generator: torch.Generator,
    candidates: int = 256,
    steps: int = 150,
    lr: float = 0.1,
) -> BestFits:
    """Search the latents that come closest to photos in mean squared error.

    No attack with this prior alone does better, because none knows the photo. Inner stages and
    pixels, which `gan_inversion` searches afterwards, can.

    Args:
        faces: The prior, fitted to the photos' shape.
        photos: `[N, C, H, W]` in [0, 1].
        generator: Draws the candidates.
        candidates: Latents drawn; each photo's search starts at the one nearest to it.
        steps: Of Adam.
        lr: Of Adam, falling to 0.
    """
    latents = faces.sample(candidates, generator)
    with torch.no_grad():
        images = torch.cat([faces.images(part) for part in torch.split(latents, _PART)])
    starts = latents[torch.cdist(photos.flatten(1), images.flatten(1)).argmin(1)]
    parts = [
        _search(faces, start, photo, steps, lr)
        for start, photo in zip(torch.split(starts, _PART), torch.split(photos, _PART), strict=True)
    ]
    drawn = torch.cat(parts)
    return BestFits(drawn, PSNR()(photos, drawn))


def _search(faces: FittedGenerator, start: Tensor, photos: Tensor, steps: int, lr: float) -> Tensor:
    latent = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([latent], lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        error = (faces.images(latent) - photos).square().flatten(1).mean(1)
        stray = latent.square().flatten(1).mean(1)
        (latent.grad,) = torch.autograd.grad((error + _STAY * stray).sum(), latent)
        optimizer.step()
    with torch.no_grad():
        return faces.images(latent).clamp(0, 1)
