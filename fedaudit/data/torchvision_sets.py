"""Public face sets that torchvision reads: LFW and CelebA."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fedaudit.core.errors import DataError, first_line
from fedaudit.data.crop import square, to_tensor
from fedaudit.data.face_set import FaceSet

TERMS = {
    "lfw_people": "Labeled Faces in the Wild (Huang et al. 2007); research use",
    "celeba": "CelebA (Liu et al. 2015); non-commercial research",
}


def lfw_people(
    *, root: str, size: int = 64, people: int = 40, photos: int = 10, download: bool = False
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
    from torchvision.datasets import LFWPeople  # noqa: PLC0415 - slow

    data: Any = _open(
        lambda: LFWPeople(root, split="10fold", image_set="funneled", download=download),
        Path(root) / "lfw-py",
        "lfw_people",
    )
    return _most_photographed(
        data,
        people=[Path(file).parent.name for file in data.data],
        sources=["/".join(Path(file).parts[-2:]) for file in data.data],
        count=people,
        photos=photos,
        size=size,
        face=0.5,  # the funneled photos show the face in the middle, with much around it
        name="lfw_people",
        terms=TERMS["lfw_people"],
    )


def celeba(
    *, root: str, size: int = 64, people: int = 40, photos: int = 10, download: bool = False
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
    from torchvision.datasets import CelebA  # noqa: PLC0415 - slow

    data: Any = _open(
        lambda: CelebA(root, split="all", target_type="identity", download=download),
        Path(root) / "celeba",
        "celeba",
    )
    return _most_photographed(
        data,
        people=[f"celeb{int(identity)}" for identity in data.identity],
        sources=data.filename,
        count=people,
        photos=photos,
        size=size,
        face=0.6,  # so it is in the aligned photos
        name="celeba",
        terms=TERMS["celeba"],
    )


def _open(read: Callable[[], Any], folder: Path, name: str) -> Any:
    try:
        return read()
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name} is not at {folder}: {first_line(error)} Set `root` to the folder that holds "
            f"{folder.name!r}, or let torchvision download it with `download = true`."
        ) from error


def _most_photographed(
    data: Sequence[tuple[Image.Image, Any]],
    *,
    people: Sequence[str],
    sources: Sequence[str],
    count: int,
    photos: int,
    size: int,
    face: float,
    name: str,
    terms: str,
) -> FaceSet:
    """The first photos of the `count` most photographed people; `face` is its share of a side."""
    counts = [(person, n) for person, n in Counter(people).items() if n >= 2]
    if not counts or count < 1 or photos < 2:
        raise DataError(
            f"{name} with people = {count} and photos = {photos} leaves no one with two photos. "
            "Ask for at least one person and two photos."
        )
    ranking = [person for person, _ in sorted(counts, key=lambda c: (-c[1], c[0]))[:count]]
    places: dict[str, list[int]] = {person: [] for person in ranking}
    for i, person in enumerate(people):
        if person in places and len(places[person]) < photos:
            places[person].append(i)
    choice = [i for person in ranking for i in places[person]]
    return FaceSet(
        name=name,
        images=to_tensor([_center(data[i][0], face) for i in choice], size),
        people=tuple(people[i] for i in choice),
        sources=tuple(sources[i] for i in choice),
        terms=terms,
        public=True,
    )


def _center(photo: Image.Image, share: float) -> Image.Image:
    """The central square with `share` of the shorter side."""
    photo = square(photo)
    margin = round(photo.width * (1 - share) / 2)
    return photo.crop((margin, margin, photo.width - margin, photo.height - margin))
