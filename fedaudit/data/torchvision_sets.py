"""Public face sets that torchvision reads: LFW and CelebA."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torchvision.datasets import CelebA, LFWPeople

from fedaudit.core.errors import DataError
from fedaudit.data.crop import square, to_tensor
from fedaudit.data.face_set import FaceSet

# LFW's funneled photos and CelebA's aligned ones show the face in the middle, with much around it.
_LFW_SHARE = 0.5
_CELEBA_SHARE = 0.6


def lfw_people(
    *,
    root: str,
    size: int = 64,
    people: int = 40,
    photos: int = 10,
    download: bool = False,
) -> FaceSet:
    """Labeled Faces in the Wild: the people with the most photos, cropped to the face.

    Args:
        root: Folder that holds `lfw-py`.
        size: Side of the photos in pixels.
        people: How many people.
        photos: At most so many photos of each; people with fewer than two are left out.
        download: Let torchvision download what is missing (about 230 MB).

    Raises:
        DataError: The files are not there.
    """
    try:
        data = LFWPeople(root, split="10fold", image_set="funneled", download=download)
    except (RuntimeError, OSError) as error:
        raise _absent("lfw_people", root, "lfw-py", error) from error
    names = [Path(file).parent.name for file in data.data]
    chosen = _most_photographed(names, people, photos, "lfw_people")
    return FaceSet(
        name="lfw_people",
        images=to_tensor([_center(data[i][0], _LFW_SHARE) for i in chosen], size),
        people=tuple(names[i] for i in chosen),
        sources=tuple("/".join(Path(data.data[i]).parts[-2:]) for i in chosen),
        terms="Labeled Faces in the Wild (Huang et al. 2007); research use",
        public=True,
    )


def celeba(
    *,
    root: str,
    size: int = 64,
    people: int = 40,
    photos: int = 10,
    download: bool = False,
) -> FaceSet:
    """CelebA: the people with the most photos, cropped to the face.

    Args:
        root: Folder that holds `celeba`.
        size: Side of the photos in pixels.
        people: How many people.
        photos: At most so many photos of each; people with fewer than two are left out.
        download: Let torchvision download what is missing (about 1.4 GB).

    Raises:
        DataError: The files are not there.
    """
    try:
        data = CelebA(root, split="all", target_type="identity", download=download)
    except (RuntimeError, OSError) as error:
        raise _absent("celeba", root, "celeba", error) from error
    names = [f"celeb{int(identity)}" for identity in data.identity]
    chosen = _most_photographed(names, people, photos, "celeba")
    return FaceSet(
        name="celeba",
        images=to_tensor([_center(data[i][0], _CELEBA_SHARE) for i in chosen], size),
        people=tuple(names[i] for i in chosen),
        sources=tuple(data.filename[i] for i in chosen),
        terms="CelebA (Liu et al. 2015); non-commercial research",
        public=True,
    )


def _most_photographed(names: Sequence[str], people: int, photos: int, data: str) -> list[int]:
    """Indices of the first photos of the most photographed people, person by person."""
    counts = [(name, n) for name, n in Counter(names).items() if n >= 2]
    if not counts or people < 1 or photos < 2:
        raise DataError(
            f"{data} with people = {people} and photos = {photos} leaves no one with two photos. "
            "Ask for at least one person and two photos."
        )
    ranked = [name for name, _ in sorted(counts, key=lambda c: (-c[1], c[0]))[:people]]
    places: dict[str, list[int]] = {name: [] for name in ranked}
    for i, name in enumerate(names):
        if name in places and len(places[name]) < photos:
            places[name].append(i)
    return [i for name in ranked for i in places[name]]


def _center(photo: Image.Image, share: float) -> Image.Image:
    """The central square with `share` of the shorter side."""
    photo = square(photo)
    margin = round(photo.width * (1 - share) / 2)
    return photo.crop((margin, margin, photo.width - margin, photo.height - margin))


def _absent(data: str, root: str, folder: str, error: Exception) -> DataError:
    reason = str(error).strip().split("\n")[0]
    return DataError(
        f"{data} is not at {Path(root) / folder}: {reason} Set `root` to the folder that holds "
        f"{folder!r}, or let torchvision download it with `download = true`."
    )
