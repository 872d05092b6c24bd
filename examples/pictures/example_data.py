"""Small stand-ins for CIFAR-10, a MedMNIST file and a folder of X-rays, in their very layouts.

    python examples/pictures/example_data.py

writes `data/` beside this file, so that the three studies here run as they stand. Put the real set
in its place, and the same study audits it: `cifar-10-batches-py` as CIFAR's archive unpacks,
`chestmnist.npz` as MedMNIST offers it, a folder of X-rays with a folder for each class.
"""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
"""Photos that scikit-image ships; squares of each are a class."""
SIDE, LEAST_CONTRAST = 48, 25
"""Pixels of such a square, which shares none with another, and the least deviation of its values:
squares of nothing but sky are one image many times."""
FINDINGS = 3
"""Of the stand-in for a chest X-ray: opacities may lie at so many places."""
VESSELS = 16
"""Cells along a side of what is each lung's own: without it two normal ones are one image."""


def main(folder: Path) -> None:
    """Write all three below `folder`."""
    draw = np.random.default_rng(0)
    cifar(folder / "cifar-10-batches-py", draw)
    medmnist(folder / "chestmnist.npz", draw)
    x_rays(folder / "x-rays", draw)
    sys.stdout.write(f"wrote {folder}\n")


def cifar(folder: Path, draw: np.random.Generator) -> None:
    """CIFAR-10's pickled batches, of squares of photos."""
    folder.mkdir(parents=True, exist_ok=True)
    squares = [(label, image) for label, name in enumerate(PHOTOS) for image in _squares(name)]
    order = draw.permutation(len(squares))
    flat = np.stack([squares[k][1].transpose(2, 0, 1).ravel() for k in order])
    labels = [squares[k][0] for k in order]
    for number in range(5):
        part = slice(number, None, 5)
        batch = {b"data": flat[part], b"labels": labels[part]}
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(batch))
    meta = {b"label_names": [name.encode() for name in PHOTOS]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))


def medmnist(file: Path, draw: np.random.Generator, count: int = 200) -> None:
    """ChestMNIST's arrays: gray images of 28 pixels, each with any of several findings."""
    findings = draw.random((count, FINDINGS)) < 0.3
    images = np.stack([_chest(found, 28, draw) for found in findings])
    np.savez(file, train_images=np.uint8(images * 255), train_labels=np.uint8(findings))


def x_rays(folder: Path, draw: np.random.Generator, count: int = 240) -> None:
    """A folder for each class, of 16-bit gray PNG files in portrait format."""
    for label in ("normal", "pneumonia"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count // 2):
            found = draw.random(FINDINGS) < (0.6 if label == "pneumonia" else 0)
            deep = np.uint16(_chest(found, 128, draw) * 65535)
            Image.fromarray(deep).save(folder / label / f"{number:03d}.png")


def _squares(name: str) -> Iterator[NDArray[np.uint8]]:
    """Squares of a photo, side by side, at 32 pixels."""
    photo = getattr(skimage.data, name)()
    for top in range(0, photo.shape[0] - SIDE + 1, SIDE):
        for left in range(0, photo.shape[1] - SIDE + 1, SIDE):
            square = Image.fromarray(photo[top : top + SIDE, left : left + SIDE])
            small = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC))
            if small.std() >= LEAST_CONTRAST:
                yield small


def _chest(
    findings: NDArray[np.bool_], size: int, draw: np.random.Generator
) -> NDArray[np.float64]:
    """Something like a chest X-ray in [0, 1]: ribs and vessels over dark lungs, opacities."""
    y, x = np.mgrid[0:size, 0:size] / size
    tilt, wide, high = draw.normal(0, 0.03), draw.uniform(0.14, 0.2), draw.uniform(0.26, 0.34)
    image = 0.75 - 0.25 * np.abs(x - 0.5)
    for side in (-1, 1):
        middle = 0.5 + side * draw.uniform(0.2, 0.24) + tilt * (y - 0.5)
        image -= 0.5 * _spot(x - middle, y - 0.48, wide, high)
    image += 0.08 * np.sin(2 * np.pi * (draw.uniform(7, 10) * y + draw.uniform(0, 1) + x * (1 - x)))
    vessels = Image.fromarray(draw.normal(0, 0.06, (VESSELS, VESSELS)).astype(np.float32))
    image += np.asarray(vessels.resize((size, size), Image.Resampling.BICUBIC))
    for place in np.flatnonzero(findings):
        left, top = 0.3 + 0.4 * (place % 2), 0.35 + 0.15 * place
        spot = _spot(x - left + draw.normal(0, 0.04), y - top + draw.normal(0, 0.04), 0.07, 0.06)
        image += draw.uniform(0.3, 0.5) * spot
    return np.clip(image + draw.normal(0, 0.02, image.shape), 0, 1)


def _spot(
    x: NDArray[np.float64], y: NDArray[np.float64], wide: float, high: float
) -> NDArray[np.float64]:
    spot: NDArray[np.float64] = np.exp(-(((x / wide) ** 2 + (y / high) ** 2) ** 2))
    return spot


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
