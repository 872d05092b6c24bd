"""A user's own photos: one folder a person."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageOps

from fedaudit.core.errors import DataError
from fedaudit.data.crop import square, to_tensor
from fedaudit.data.face_set import FaceSet

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff", ".webp"})
"""What counts as a photo; other files (notes, thumbnail databases) are passed over."""

MIN_SIDE = 16
MAX_ASPECT = 2.0

_EXAMPLE = "Put each person's photos in a folder of their own, as in faces/anna/1.jpg."


def folder(*, path: str, size: int = 64) -> FaceSet:
    """Photos below `path`, a folder a person; each is cropped to its central square.

    Nothing looks for the face in a photo: crop tightly before, with some hair and chin left.

    Args:
        path: Folder that holds the people's folders.
        size: Side of the photos in pixels.

    Raises:
        DataError: There is nothing of that kind at `path`, a person has fewer than two photos,
            or a photo cannot be read or is not face-sized.
    """
    people = _people(Path(path).expanduser())
    photos = {
        f"{person}/{file.name}": read_photo(file)
        for person, files in people.items()
        for file in files
    }
    return FaceSet(
        name=Path(path).name,
        images=to_tensor(list(photos.values()), size),
        people=tuple(source.split("/")[0] for source in photos),
        sources=tuple(photos),
        terms="yours; not shown in a report unless you ask for it",
    )


def _people(root: Path) -> Mapping[str, list[Path]]:
    """Photo files by person, both sorted."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"the face folder {root} {what}. Correct `path`. {_EXAMPLE}")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"{root} holds no person folders. {_EXAMPLE}")
    people = {}
    for person in folders:
        if nested := [p.name for p in sorted(person.iterdir()) if p.is_dir()]:
            raise DataError(
                f"{person} holds the folder {nested[0]!r}, but a person's folder must hold photos "
                f"only. Is {root} one level too high? {_EXAMPLE}"
            )
        people[person.name] = sorted(p for p in person.iterdir() if p.suffix.lower() in SUFFIXES)
    if short := [name for name, files in people.items() if len(files) < 2]:
        raise DataError(
            f"re-identification needs at least two photos of each person: one that a client trains "
            f"on, another for the gallery. Fewer than two: {_listed(short)}. Add photos, or move "
            "those folders out."
        )
    return people


def read_photo(file: Path) -> Image.Image:
    """A photo, upright and square.

    Raises:
        DataError: It cannot be read, or is not face-sized.
    """
    try:
        with Image.open(file) as opened:
            opened.load()
            photo = ImageOps.exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} cannot be read as a photo: {error}. Replace or remove it."
        ) from error
    width, height = photo.size
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(
            f"{file} is {width} × {height} pixels, not face-sized: needed are at least {MIN_SIDE} "
            "pixels a side, and no side over twice the other. Crop it to the face, or remove it."
        )
    return square(photo)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
