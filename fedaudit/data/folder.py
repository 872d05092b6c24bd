"""A user's own photos: one folder a person."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from fedaudit.core.errors import DataError
from fedaudit.core.printable import first_few
from fedaudit.data.aligned_folder import Alignment, Watch, aligned_photos
from fedaudit.data.crop import in_rgb, square, to_tensor
from fedaudit.data.face_set import FaceSet
from fedaudit.data.heic import HEIC, HEIC_EXTRA, is_unread_heic

T = TypeVar("T")

SUFFIXES = HEIC | frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff", ".webp"}
)
"""What counts as a photo; other files (notes, thumbnail databases) are passed over."""
FOREIGN = frozenset({".cr2", ".dng", ".nef"})
"""Photos that cannot be read here: named, never passed over."""

MIN_SIDE = 16
MAX_ASPECT = 2.0

_EXAMPLE = "Put each person's photos in a folder of their own, as in faces/anna/1.jpg."


def folder(*, path: str, size: int = 64, align: bool = False) -> FaceSet:
    """Photos below `path`, a folder a person, cropped to the central square or to the face.

    Args:
        path: Folder that holds the people's folders.
        size: Side of the photos in pixels.
        align: Look for the face in each photo, of any size and shape, and bring eyes, nose and
            mouth to fixed places. Of several faces the most prominent is taken
            (`fedaudit.data.subject`). A photo that shows none, or only tiny ones, or cannot be
            read, or is its person's only one with a face, is left out; the set lists them. Without
            it nothing looks for the face: crop tightly before, with some hair and chin left.

    Raises:
        DataError: There is nothing of that kind at `path`, a person has fewer than two photos (or
            none, or nobody has two that show a face, if they are aligned), or photos that are not
            aligned cannot be read or are not face-sized; all that is wrong is told at once.
        AssetError: They are to be aligned, and the face detector is not at hand.
    """
    root = Path(path).expanduser()
    people = _people(root, 1 if align else 2)
    files = {f"{p}/{file.name}": file for p, several in people.items() for file in several}
    if align:
        images, alignment = aligned_photos(files, size, str(root), open_photo)
        kept = _two_each(alignment)
        images = images[[source in kept.sources for source in alignment.sources]]
        alignment = kept
    else:
        images, alignment = to_tensor(list(read_every(files, read_photo).values()), size), None
    sources = alignment.sources if alignment else tuple(files)
    return FaceSet(
        name=Path(path).name,
        images=images,
        people=tuple(source.split("/")[0] for source in sources),
        sources=sources,
        terms="yours; not shown in a report unless you ask for it",
        notes=alignment.notes if alignment else (),
        left_out=alignment.left_out if alignment else (),
    )


def align_folder(path: str, size: int, watch: Watch) -> Alignment:
    """Look for the faces of a folder's photos, which takes minutes the first time.

    Args:
        path: As `folder` takes it.
        size: Side of the faces in pixels.
        watch: Called with how many photos are done, and of how many, while faces are looked for.

    Raises:
        DataError: There is no folder a person at `path`, or of nobody two photos show a face.
        AssetError: The face detector is not at hand.
    """
    root = Path(path).expanduser()
    people = _people(root, 1)
    files = {f"{p}/{file.name}": file for p, several in people.items() for file in several}
    return _two_each(aligned_photos(files, size, str(root), open_photo, watch)[1])


def _people(root: Path, least: int) -> Mapping[str, list[Path]]:
    """Photo files by person, both sorted; of each person so many at least."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"the face folder {root} {what}. Correct `path`. {_EXAMPLE}")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"{root} holds no person folders. {_EXAMPLE}")
    people = {}
    for person in folders:
        if below := [p.name for p in sorted(person.iterdir()) if p.is_dir()]:
            raise DataError(
                f"{person} holds the folder {below[0]!r}, but a person's folder must hold photos "
                f"only. Is {root} one level too high? {_EXAMPLE}"
            )
        inside = sorted(person.iterdir())
        people[person.name] = [p for p in inside if p.suffix.lower() in SUFFIXES | FOREIGN]
    if short := [name for name, files in people.items() if len(files) < least]:
        raise DataError(
            f"re-identification needs at least two photos of each person: one that a client trains "
            f"on, another for the gallery. Fewer than two: {first_few(short, 5)}. Add photos, or "
            "move those folders out."
        )
    return people


def open_photo(file: Path, least: int = 0) -> Image.Image:
    """A photo, upright, in RGB: 16 bits become 8, what is transparent becomes white.

    Args:
        file: The photo.
        least: Pixels of the shorter side from which on they are enough: a JPEG of twice as many or
            more is decoded at a half, a quarter or an eighth, in less time. 0 reads it whole.

    Raises:
        DataError: It cannot be read.
    """
    if file.suffix.lower() in FOREIGN:
        raise DataError(f"{file} is of a kind that cannot be read here. Convert it to JPEG or PNG.")
    if is_unread_heic(file):
        raise DataError(f"{file} is HEIC. To have it read: {HEIC_EXTRA}; or convert it to JPEG.")
    try:
        with Image.open(file) as image:
            if least:
                image.draft("RGB", (least, least))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            photo: Image.Image = image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} cannot be read as a photo: {error}. Replace or remove it."
        ) from error
    if photo.mode.startswith("I"):  # Pillow would cut all above 255 off
        deep = np.asarray(photo).astype(np.float64) / 257
        photo = Image.fromarray(deep.clip(0, 255).round().astype(np.uint8))
    if photo.has_transparency_data:
        seen = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return in_rgb(photo)


def read_photo(file: Path) -> Image.Image:
    """A photo in RGB, upright and square.

    Raises:
        DataError: It cannot be read, or is not face-sized.
    """
    photo = open_photo(file)
    width, height = photo.size
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(
            f"{file} is {width} × {height} pixels, not face-sized: needed are at least {MIN_SIDE} "
            "pixels a side, and no side over twice the other. Crop it to the face, or remove it, "
            "or have all faces found: align = true."
        )
    return square(photo)


def read_every(files: Mapping[str, Path], read: Callable[[Path], T]) -> dict[str, T]:
    """What is read of each file, by source; all that cannot be read is told at once."""
    values: dict[str, T] = {}
    problems: list[str] = []
    for source, file in files.items():
        try:
            values[source] = read(file)
        except DataError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        more = f"\n… and {len(problems) - 10} more" if len(problems) > 10 else ""
        lines = "\n".join(problems[:10])
        raise DataError(f"{len(problems)} photos cannot be used:\n{lines}{more}")
    return values


def _two_each(alignment: Alignment) -> Alignment:
    """Without people of whom a single photo shows a face."""
    faces = Counter(source.split("/")[0] for source in alignment.sources)
    alone = [source for source in alignment.sources if faces[source.split("/")[0]] < 2]
    reasons = [(source, "is its person's only photo that shows a face") for source in alone]
    left_out = (*alignment.left_out, *reasons)
    if len(faces) == len(alone):
        why = [f"{source} {reason}" for source, reason in left_out]
        raise DataError(
            "of nobody two photos show a face, one to train on and one for the gallery: "
            f"{first_few(why, 5)}. Add photos."
        )
    return replace(
        alignment,
        sources=tuple(source for source in alignment.sources if source not in alone),
        left_out=left_out,
        several=tuple(source for source in alignment.several if source not in alone),
        turned=tuple(source for source in alignment.turned if source not in alone),
    )
