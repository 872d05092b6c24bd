"""Which photos a folder or a set holds, by any names: hashes, from which no face comes back."""

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fedaudit.data.folder import SUFFIXES

DIGITS = 16
"""Of each SHA-256, in hexadecimal: two of a million photos share 64 bits by chance once in 40
million folders."""


def photo_files(path: Path) -> list[Path]:
    """All photos in a folder and the folders in it, sorted; nothing hidden."""
    return [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]


@lru_cache(maxsize=4)
def photo_hashes(path: Path) -> tuple[str, ...]:
    """A hash of the bytes of each photo in a folder, in the order of `photo_files`.

    A copy under another name has the same; one that was saved anew, cropped or resized has not.
    """
    return tuple(hashlib.sha256(f.read_bytes()).hexdigest()[:DIGITS] for f in photo_files(path))


def image_hashes(images: Tensor) -> tuple[str, ...]:
    """A hash of the pixels, in 8 bits, of each of `[N, C, H, W]` in [0, 1].

    The same photo has the same, wherever it was read from, if it was cropped and resized alike.
    """
    pixels = images.mul(255).round().to(torch.uint8).cpu().numpy()
    return tuple(hashlib.sha256(image.tobytes()).hexdigest()[:DIGITS] for image in pixels)
