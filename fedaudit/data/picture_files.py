"""Pictures with a class label, as the usual files hold them: MedMNIST, CIFAR, MNIST, class folders.

A reader says the class of each picture in the order of the files; pixels are only read of those
that are asked for. Nothing is executed: archives of arrays are read without objects, and CIFAR's
pickles by a reader that admits arrays alone.
"""

import gzip
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fedaudit.core.errors import AssetError, DataError
from fedaudit.data.crop import resize, square, to_tensor
from fedaudit.data.folder import FOREIGN, SUFFIXES, open_photo, read_every
from fedaudit.files.weights import read_array_pickle

LAYOUTS = (
    "a MedMNIST file (chestmnist.npz), CIFAR's folder (cifar-10-batches-py, cifar-100-python), "
    "MNIST's (train-images-idx3-ubyte), a folder for each class (train/NORMAL/1.png), or a folder "
    "of images"
)
"""What can be read, in words."""
_PART = 256
"""Images that are resized at once."""


@dataclass(frozen=True)
class LabeledPictures:
    """What a reader found.

    Attributes:
        classes: `[N]` the name of each one's class.
        load: Numbers of pictures → `[n, 3, size, size]` in [0, 1].
        research: A public research set, as its layout says.
        sources: `[N]` files, below the folder; () where they are numbers in an archive.
        notes: What a report must say of how they were read.
    """

    classes: tuple[str, ...]
    load: Callable[[Sequence[int]], Tensor]
    research: bool = False
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_pictures(path: Path, size: int, split: str) -> LabeledPictures:
    """The pictures of a split at `path`, whatever the layout.

    Args:
        path: A file or folder.
        size: Side in pixels; the central square is resized to it.
        split: "train", "val" or "test", where the layout has several.

    Raises:
        DataError: There is nothing of a known layout, or it cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist. Correct `path`: it is {LAYOUTS}.")
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise DataError(f"{path} is no .npz file. `path` is {LAYOUTS}.")
        return _of_arrays(path, size, split)
    inside = {entry.name for entry in path.iterdir()}
    for name in ("cifar-10-batches-py", "cifar-100-python", "raw", "MNIST", "FashionMNIST"):
        if name in inside and (path / name).is_dir():  # the folder that torchvision calls root
            return read_pictures(path / name, size, split)
    if inside & {"data_batch_1", "test_batch"} or {"train", "meta"} <= inside:
        return _of_cifar(path, size, split)
    if any(name.startswith(("train-images", "t10k-images")) for name in inside):
        return _of_idx(path, size, split)
    return _of_folders(path, size)


def _of_arrays(file: Path, size: int, split: str) -> LabeledPictures:
    """MedMNIST's layout: `train_images [N, H, W(, C)]` and `train_labels [N, 1 or more]`."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = set(archive.files)
            prefix = f"{split}_" if f"{split}_images" in names else ""
            if not {f"{prefix}images", f"{prefix}labels"} <= names:
                raise DataError(
                    f"{file} holds {', '.join(sorted(names)[:6])}, and needed are {split}_images "
                    f"and {split}_labels, as MedMNIST has them."
                )
            images, labels = archive[f"{prefix}images"], archive[f"{prefix}labels"]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file} cannot be read as an archive of arrays: {error}. Objects in it are never "
            "executed; save plain arrays with numpy.savez."
        ) from error
    table = labels.reshape(len(labels), -1)
    notes: tuple[str, ...] = ()
    if table.shape[1] > 1:
        notes = (
            f"Of {table.shape[1]} findings an image may have, its class is the first that it has.",
        )
        labels_of_rows = (str(int(row.argmax())) if row.any() else "none" for row in table != 0)
        return LabeledPictures(tuple(labels_of_rows), _loader(images, size, file), notes=notes)
    classes = tuple(str(label) for label in table[:, 0].tolist())
    return LabeledPictures(classes, _loader(images, size, file))


def _of_cifar(folder: Path, size: int, split: str) -> LabeledPictures:
    """CIFAR-10's and CIFAR-100's pickled batches: rows of 3 × 32 × 32 values."""
    hundred = (folder / "meta").exists()
    if hundred:
        files = [folder / ("train" if split == "train" else "test")]
    else:
        tests = [folder / "test_batch"]
        files = sorted(folder.glob("data_batch_*")) if split == "train" else tests
    batches = [_unpickle(file) for file in files]
    meta = _unpickle(folder / ("meta" if hundred else "batches.meta"))
    names = [_text(name) for name in meta["fine_label_names" if hundred else "label_names"]]
    labels = [k for batch in batches for k in batch["fine_labels" if hundred else "labels"]]
    rows = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    load = _loader(rows.transpose(0, 2, 3, 1), size, folder)
    return LabeledPictures(tuple(names[k] for k in labels), load, research=True)


def _unpickle(file: Path) -> dict[str, Any]:
    try:
        table = read_array_pickle(file)
    except (AssetError, OSError) as error:
        raise DataError(
            f"{file} cannot be read as a batch of CIFAR: {error} Unpack the set anew."
        ) from error
    return {_text(key): value for key, value in table.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _of_idx(folder: Path, size: int, split: str) -> LabeledPictures:
    """MNIST's layout: big-endian headers, then bytes; as they are or gzipped."""
    stem = "train" if split == "train" else "t10k"
    images = _bytes_of(folder, f"{stem}-images-idx3-ubyte", 16)
    labels = _bytes_of(folder, f"{stem}-labels-idx1-ubyte", 8)
    height, width = (int.from_bytes(images[0][k : k + 4], "big") for k in (8, 12))
    pixels = images[1].reshape(-1, height, width)
    names = tuple(str(k) for k in labels[1].tolist())
    return LabeledPictures(names, _loader(pixels, size, folder), research=True)


def _bytes_of(folder: Path, name: str, header: int) -> tuple[bytes, NDArray[np.uint8]]:
    file = folder / name
    try:
        raw = file.read_bytes() if file.exists() else gzip.decompress(_archive(file).read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}. Unpack the set anew.") from error
    return raw[:header], np.frombuffer(raw, np.uint8, offset=header)


def _archive(file: Path) -> Path:
    return file.with_name(f"{file.name}.gz")


def _of_folders(folder: Path, size: int) -> LabeledPictures:
    """A folder for each class, however deep below it images lie; or images without classes."""
    files = dict(_images_below(folder))
    if not files:
        raise DataError(f"{folder} holds no images. `path` is {LAYOUTS}.")
    in_folders = {name: place for name, place in files.items() if "/" in name}
    flat = not in_folders
    places = files if flat else in_folders
    sources = list(places)

    def load(numbers: Sequence[int]) -> Tensor:
        subset = {sources[k]: places[sources[k]] for k in numbers}
        return to_tensor(list(read_every(subset, small).values()), size)

    def small(file: Path) -> Image.Image:
        return square(open_photo(file)).resize((size, size), Image.Resampling.BICUBIC)

    classes = tuple("image" if flat else name.partition("/")[0] for name in sources)
    notes: tuple[str, ...] = ()
    if loose := len(files) - len(places):
        what = "1 image lies" if loose == 1 else f"{loose} images lie"
        notes = (f"{what} beside the classes' folders, left out.",)
    return LabeledPictures(classes, load, notes=notes, sources=tuple(sources))


def _images_below(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in SUFFIXES | FOREIGN and not is_hidden and file.is_file():
            yield file.relative_to(folder).as_posix(), file


def _loader(pixels: NDArray[Any], size: int, file: Path) -> Callable[[Sequence[int]], Tensor]:
    """Loads of arrays `[N, H, W]` or `[N, H, W, 1, 3 or 4]` of any depth."""
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3, 4):
        raise DataError(
            f"{file}: its images have shape {list(pixels.shape)}, and needed is [N, H, W] or "
            "[N, H, W, 3]. Volumes are no pictures: save slices of them."
        )
    white = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else 1.0

    def load(numbers: Sequence[int]) -> Tensor:
        values = pixels[list(numbers)][..., :3].astype(np.float32) / white
        if not ((values >= 0) & (values <= 1)).all():
            raise DataError(
                f"{file}: its images hold values outside [0, 1] that are no whole numbers of 8 or "
                "16 bits. Scale them to [0, 1]."
            )
        images = torch.from_numpy(values).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        return torch.cat([resize(part, size) for part in torch.split(_square(images), _PART)])

    return load


def _square(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side].contiguous()
