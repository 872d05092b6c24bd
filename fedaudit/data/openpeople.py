"""OpenPeople: 230 color faces of ten people who do not exist, aligned."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fedaudit.core.errors import AssetError, StorageError
from fedaudit.data.alignment import align
from fedaudit.data.crop import to_pixels
from fedaudit.data.face_detector import Point, find_faces
from fedaudit.data.face_set import FaceSet
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS
from fedaudit.files.cache import key_of, load_or_learn

PEOPLE = 10
SHEETS = {
    "studio_portrait": 1,
    "amateur_selfie": 1,
    "amateur_posture": 1,
    "studio_posture": 1,
    "emotions_sheet": 16,
    "character_sheet": 3,
}
"""Pictures of each person, in our order, and how many faces are cut from each."""
VERSION = 1
"""To be raised where the same pictures would give other faces."""

_SIDES = (1280, 640, 320)  # pixels of a sheet's longer side at which it is searched
_MIN_WIDTH, _MIN_SCORE = 100, 0.85
# Smaller faces are those of whole figures, of some 60 pixels; backs of heads score up to .80.
_ADVICE = "Unset FEDAUDIT_ASSET_OPENPEOPLE if you set it, and run: fedaudit assets fetch openpeople"


def openpeople(*, size: int = 64) -> FaceSet:
    """Aligned color faces of ten invented people, p01 … p10, 23 each, so nobody's face is shown.

    The first four of a person are photos of different scenes, then come sixteen expressions and
    three views from a sheet. Ten people are too few to calibrate a false match rate of 1e-3.

    Args:
        size: Side of the photos in pixels; faces are 120 to 900 pixels wide in the pictures.

    Raises:
        AssetError: The pictures are neither cached nor fetchable.
    """
    folder = asset_store.path("openpeople")
    people = [f"p{number:02d}" for number in range(1, PEOPLE + 1)]
    faces = [f"{sheet}/{i + 1}" for sheet, count in SHEETS.items() for i in range(count)]
    pixels = _cache(f"{size} px", lambda: torch.cat(list(_cut(folder, size))))
    return FaceSet(
        name="openpeople",
        images=pixels.float().div(255),
        people=tuple(person for person in people for _ in faces),
        sources=tuple(f"{person}/{face}" for person in people for face in faces),
        terms=ASSETS["openpeople"].terms,
        public=True,
    )


def _cut(folder: Path, size: int) -> Iterator[Tensor]:
    """Faces of each picture in turn, `[n, 3, size, size]` uint8."""
    points = [tuple((x, y) for x, y in face) for face in _points(folder)]
    for file, count in _pictures(folder):
        with _open(file) as picture:
            yield to_pixels([align(picture, points.pop(0), size) for _ in range(count)])


def _points(folder: Path) -> list[list[list[float]]]:
    """Five points of each face: as they were found once in these pictures, or found in others.

    `found_points` takes 12 CPU seconds, which whoever begins would wait for.
    """
    stored = json.loads(Path(__file__).with_name("openpeople_points.json").read_text())
    if asset_store.digest("openpeople") == stored["pictures"]:
        points = torch.tensor(stored["points"]).view(-1, 5, 2)
    else:
        points = _cache("points", lambda: torch.tensor(list(found_points(folder))))
    listed: list[list[list[float]]] = points.tolist()
    return listed


def found_points(folder: Path) -> Iterator[tuple[Point, ...]]:
    """Five points of each face, picture by picture, in reading order, by the face detector."""
    for file, count in _pictures(folder):
        with _open(file) as picture:
            faces = [f for f in find_faces(picture, _SIDES, _MIN_SCORE) if f.width >= _MIN_WIDTH]
            row = picture.height / 4  # the expressions come four by four
        if len(faces) != count:
            raise AssetError(
                f"{file} shows {len(faces)} faces, not {count}: it is not a picture of OpenPeople. "
                f"{_ADVICE}"
            )
        faces.sort(key=lambda face: (face.points[2][1] // row, face.box[0]))
        yield from (face.points for face in faces)


def _pictures(folder: Path) -> Iterator[tuple[Path, int]]:
    for number in range(1, PEOPLE + 1):
        for sheet, count in SHEETS.items():
            yield folder / f"P{number:03d}" / "assets" / f"{sheet}.jpg", count


def _open(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except OSError as error:
        raise AssetError(
            f"the pictures of OpenPeople in {file.parent} are incomplete: {error}. {_ADVICE}"
        ) from error


def _cache(what: str, make: Callable[[], Tensor]) -> Tensor:
    """Tensors from the user's cache: reading all pictures takes a second."""
    key = key_of({}, "openpeople", VERSION, asset_store.digest("openpeople"), what)
    try:
        entry = load_or_learn(
            key, lambda: {"it": make()}, None, what=f"openpeople: {what}", valid=("it",)
        )
    except StorageError:
        return make()  # without a cache it takes longer, that is all
    return entry["it"]
