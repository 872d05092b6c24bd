"""Photos that the auditor brings to a recorded run: of consenting clients, and a gallery of people.

Attacks see neither. A client's photos lie flat in a folder, or a folder a person, or in `round-N/`
folders of either kind, so that each round is compared with what was trained on in it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedaudit.core.capture import Secret
from fedaudit.core.errors import DataError
from fedaudit.core.seeds import generator_for
from fedaudit.core.source import FaceEmbedder
from fedaudit.data.folder import SUFFIXES, folder, read_photo
from fedaudit.scoring.copies import nearest_photos
from fedaudit.scoring.framing import Frame
from fedaudit.scoring.identity import rgb

ROUND = re.compile(r"round-0*(\d+)")
SAME = 2e-4
"""Mean squared error below which two photos at the study's size are one photo."""

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Originals:
    """Photo files of one client in one round, with the person of each ("" where nobody says)."""

    files: tuple[Path, ...]
    people: tuple[str, ...]


def originals(root: Path, round: int) -> Originals:
    """A client's photos in a round; none where other rounds have folders and this one has not.

    Raises:
        DataError: There is no folder, or it holds no photo.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise DataError(
            f"--truth: there is no folder {root}. Name a folder with a client's own photos."
        )
    rounds = {
        int(match[1]): path
        for path in sorted(root.iterdir())
        if path.is_dir() and (match := ROUND.fullmatch(path.name))
    }
    if rounds and round not in rounds:
        return Originals((), ())
    place = rounds.get(round, root)
    photos = _photos(place)
    if not photos:
        raise DataError(
            f"--truth: {place} holds no photos ({', '.join(sorted(SUFFIXES))}). "
            "Put a client's photos into it, or into a folder a person below it."
        )
    return Originals(*zip(*photos, strict=True))


def _photos(root: Path) -> list[tuple[Path, str]]:
    """Photos below a folder with their people, sorted; hidden folders are passed over."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    in_folders = [(file, person.name) for person in folders for file in sorted(person.iterdir())]
    flat = [(file, "") for file in sorted(root.iterdir())]
    return [(f, p) for f, p in (*flat, *in_folders) if f.is_file() and f.suffix.lower() in SUFFIXES]


def secret_of(given: Iterable[tuple[str, Originals]], shape: Shape) -> Secret:
    """The truth behind an update: photos of its client, or of an aggregate's.

    Labels are -1: nobody knows which class of the network a person is. `shape` is `(C, H, W)`,
    what entered the network.
    """
    images, people, sources = [], [], []
    for client, photos in given:
        for file, person in zip(photos.files, photos.people, strict=True):
            images.append(at_shape(read_photo(file), shape))
            people.append(person or client)
            sources.append(file.name)
    labels = torch.full((len(images),), -1)
    return Secret(torch.stack(images), labels, tuple(people), tuple(sources), candidates=True)


def at_shape(photo: Image.Image, shape: Shape) -> Tensor:
    """A photo `[C, H, W]` in [0, 1]; untouched where it has that size.

    Raises:
        DataError: Images of neither one nor three channels.
    """
    channels, height, width = shape
    if channels not in {1, 3}:
        raise DataError(f"photos have 1 or 3 channels, and the network takes {channels}.")
    picture = photo.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def embed_gallery(
    path: Path, shape: Shape, full: int, embedder: FaceEmbedder, known: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float], Frame]:
    """Embeddings of the gallery's people, as the arguments that `packed` takes.

    Every other photo of each person is a reference, the others are probes.
    A photo that is among the originals is no reference: a match must be with a *different*
    photo. Somebody of whom nothing else is left is not in the gallery. `shape`, `(C, H, W)`, is
    the size of probes, `full` the pixels of references; `known`, `[N, C, H, W]`, are all
    originals.

    Raises:
        DataError: As `fedaudit.data.folder`, or nobody is left.
    """
    large = folder(path=str(path), size=full)
    photos = [read_photo(path.expanduser() / source) for source in large.sources]
    small = torch.stack([at_shape(photo, shape) for photo in photos])
    in_use = _among(small, known)
    frame = embedder.frame(large.images)
    embed = embedder.within(frame)
    mine: dict[str, list[int]] = {}
    for index, person in enumerate(large.people):
        mine.setdefault(person, []).append(index)
    references, probes = {}, {}
    for person, indices in mine.items():
        free = [i for i in indices if not in_use[i]]
        references_of = free[::2]
        rest = [i for i in indices if i not in references_of]
        if references_of:
            references[person] = embed(large.images[references_of])
        if references_of and rest:
            probes[person] = embed(rgb(small[rest]))
    if len(references) < 2 or not probes:
        raise DataError(
            f"--gallery: {path} leaves {len(references)} people with a photo that is not among the "
            "originals, and at least two are needed. Add people, or other photos of them."
        )
    return references, probes, nearest_photos(small, large.people), frame


def gallery_faces(
    gallery: str, shape: Shape, number: int, count: int
) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """Faces of the `number`-th positive control: `[count, C, H, W]`, whose, and of whom drawn.

    People are drawn by lot among those of whom the gallery has most photos, so that others are
    left to recognize them by; nobody comes twice before everybody did.
    """
    photos = folder(path=gallery, size=16)  # only their names
    mine: dict[str, list[int]] = {}
    for index, person in enumerate(photos.people):
        mine.setdefault(person, []).append(index)
    enough = [p for p in sorted(mine) if len(mine[p]) > 2] or sorted(mine)
    lots = torch.randperm(len(enough), generator=generator_for("positive people")).tolist()
    images, people = [], []
    for place in range(number * count, (number + 1) * count):
        person = enough[lots[place % len(enough)]]
        photo = mine[person][place // len(enough) % len(mine[person])]
        images.append(at_shape(read_photo(Path(gallery) / photos.sources[photo]), shape))
        people.append(person)
    return torch.stack(images), tuple(people), tuple(enough)


def _among(images: Tensor, photos: Tensor) -> Tensor:
    """`[N]` whether each image is one of those that are known."""
    if not len(photos):
        return torch.zeros(len(images), dtype=torch.bool)
    distance = torch.cdist(images.flatten(1).double(), photos.flatten(1).double()).square()
    return distance.min(1).values < SAME * images[0].numel()


def all_originals(truth: Mapping[str, Path], rounds: Iterable[int], shape: Shape) -> Tensor:
    """`[N, C, H, W]`: everything that was given, of all clients and rounds, each file once."""
    places = product(rounds, truth.values())
    files = sorted({file for round, path in places for file in originals(path, round).files})
    images = [at_shape(read_photo(file), shape) for file in files]
    return torch.stack(images) if images else torch.empty(0, *shape)
