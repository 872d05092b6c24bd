"""Description of a prior: its latents, images and speed, and how well it expresses photos."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FaceGenerator, FittedGenerator
from fedaudit.core.errors import UsageError
from fedaudit.files.atomic import write_atomically
from fedaudit.models.generator import StagedGenerator, load_generator
from fedaudit.models.prior_file import SUFFIX, read_prior
from fedaudit.priors.face_grids import grid
from fedaudit.priors.kernel_distance import kernel_distance
from fedaudit.priors.training_photos import LEAST
from fedaudit.scoring.image_metrics import PSNR

_DRAWN = 64
_TIMED = 3
_GRAY = 1e-3
_PART = 16
_SETS = 16  # of _PART faces that are compared with photos as a set
_COMPARED = 400
_STAY = 1e-4
"""Weight of |z|²/dim: the search stays where the generator was trained."""


def describe(source: str) -> Mapping[str, str]:
    """Facts on a generator, by name: of its latents, its images, its stages, its speed."""
    generator = load_generator(source)
    latents = generator.latents
    sample = latents.draw(_DRAWN, torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = torch.cat([generator(part) for part in torch.split(sample, 16)])
    low, high = float(images.min()), float(images.max())
    if not images.isfinite().all() or low < -0.01 or high > 1.01:
        raise UsageError(
            f"generator {source!r} left the range of images at some latents: {low:.3g} to "
            f"{high:.3g}, after mapping to [0, 1]. Declare its output_range."
        )
    facts = {
        "latent": f"{list(latents.shape)}, {latents.size} numbers",
        "drawn": f"mean {sample.mean():.2f}, standard deviation {sample.std():.2f}",
        "images": f"{list(images.shape[1:])}, {low:.2f} to {high:.2f}",
        "variety": f"{float(images.std(0).mean()):.3f} (standard deviation of a pixel over draws)",
        "face crop": "top {:g}, bottom {:g}, left {:g}, right {:g}".format(*generator.crop),
        "stages": "none: only its latent can be searched",
        "speed": f"{1e3 * _seconds(source):.1f} ms of CPU a drawn face and its slope",
    }
    if isinstance(generator, StagedGenerator):
        shapes = []
        for stage in range(1, len(generator.stages)):
            with torch.no_grad():
                shape = generator.features(sample[:1], stage).shape[1:]
            shapes.append(f"{stage} {list(shape)}")
        facts["stages"] = ", ".join(shapes)
    if Path(source).suffix == SUFFIX:
        about = read_prior(Path(source)).manifest
        facts["trained"] = (
            f"on {about.photos} photos of {about.data!r}, {about.held_out} kept apart, "
            f"{about.generated} faces of face_gan; from {about.start}, {about.steps} steps, "
            f"{about.seconds:.0f} CPU seconds, seed {about.seed}"
        )
    return facts


def measure_expressiveness(
    source: str, photos: Tensor, most: int, seed: int, output: Path | None
) -> Mapping[str, str]:
    """How well a prior can draw given photos, at their size.

    Args:
        source: The prior.
        photos: `[N, 3, S, S]` in [0, 1].
        most: How many photos are tried at most, spread over the set.
        seed: Of the search.
        output: A PNG of photos and their best fits; None writes none.
    """
    every, size = photos[:_COMPARED], photos.shape[-1]
    photos = every[:: max(1, len(every) // most)][:most]
    gray = bool((photos - photos.mean(1, keepdim=True)).abs().max() < _GRAY)
    faces = FaceGenerator(source=source).load((3, size, size), grayscale=gray)
    fits = express(faces, photos, generator=torch.Generator().manual_seed(seed))
    if output:
        pairs = zip(torch.split(photos, 10), torch.split(fits.images, 10), strict=True)
        write_atomically(output, grid([row for pair in pairs for row in pair]))
    psnr = fits.psnr
    facts = {
        "expresses": f"{len(photos)} photos at {size} pixels with a PSNR of {psnr.mean():.2f} dB "
        f"({psnr.min():.2f} to {psnr.max():.2f})"
    }
    if len(every) >= LEAST:
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            sample = torch.cat([faces.images(faces.sample(_PART, noise)) for _ in range(_SETS)])
        order = torch.randperm(len(every), generator=noise)
        some, others = every[order].tensor_split(2)
        facts["resembles"] = (
            f"{len(every)} photos with a kernel distance of {kernel_distance(sample, every):.2f}, "
            f"where half of them resembles the other with {kernel_distance(some, others):.2f}"
        )
    return facts


def _seconds(source: str) -> float:
    """CPU seconds of one image and its slope in the latent; the least of some."""
    generator = load_generator(source)
    z = generator.latents.draw(1, torch.Generator().manual_seed(0)).requires_grad_()
    seconds = []
    for _ in range(_TIMED):
        began = time.process_time()
        torch.autograd.grad(generator(z).sum(), z)
        seconds.append(time.process_time() - began)
    return min(seconds)


@dataclass(frozen=True)
class BestFits:
    """Images `[N, C, H, W]` of a prior that are closest to photos, and their `psnr [N]` in dB."""

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
    """Search the latents that come closest to photos `[N, C, H, W]` in mean squared error.

    No attack with this prior alone does better, because none knows the photo. Inner stages and
    pixels, which `gan_inversion` searches afterwards, can. A search by Adam starts at the nearest
    of `candidates` latents; its learning rate falls to 0.
    """
    latents = faces.sample(candidates, generator)
    with torch.no_grad():
        images = torch.cat([faces.images(part) for part in torch.split(latents, _PART)])
    starts = latents[torch.cdist(photos.flatten(1), images.flatten(1)).argmin(1)]
    parts = [
        _search(faces, start, photo, steps, lr)
        for start, photo in zip(torch.split(starts, _PART), torch.split(photos, _PART), strict=True)
    ]
    best_images = torch.cat(parts)
    return BestFits(best_images, PSNR()(photos, best_images))


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
