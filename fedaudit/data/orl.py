"""The ORL (AT&T) faces: 40 people, ten photos each."""

from PIL import Image

from fedaudit.core.errors import AssetError
from fedaudit.data.alignment import align as align_photo
from fedaudit.data.crop import to_tensor
from fedaudit.data.face_detector import find_faces
from fedaudit.data.face_set import FaceSet
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS

PEOPLE, PHOTOS = 40, 10
BOX = (4, 28, 88, 112)
# Left, top, right, bottom in photos of 92 × 112: the lower 84 × 84. Of the crops that were tried,
# the independent embedder tells people apart best on this one (benchmarks/identity_ceiling.py).
_ALL = "0123456789"
GLASSES = {
    **dict.fromkeys((2, 6, 14, 27, 28, 31, 34, 37), _ALL),
    4: "01278",
    7: "349",
    13: "01456789",
    17: "01456789",
    19: "01259",
    20: "01246789",
    36: "89",
}
"""Photos with glasses by person, counted from 0: read off the photos by eye."""
_SIDES = (320, 160)  # pixels at which the face is found in all 400 photos


def orl(*, size: int = 64, align: bool = False) -> FaceSet:
    """400 photos of 40 people, cropped to the face; people s1 … s40, ten photos each in order.

    Args:
        size: Side of the photos in pixels.
        align: Bring eyes, nose and mouth to fixed places, as recognition networks take faces,
            rather than cut the same box out of every photo.

    Raises:
        AssetError: The photos, or the face detector, are neither cached nor fetchable.
    """
    folder = asset_store.path("orl")
    names = [f"s{p}/{i}" for p in range(1, PEOPLE + 1) for i in range(1, PHOTOS + 1)]
    photos = []
    for name in names:
        try:
            with Image.open(folder / f"{name}.pgm") as photo:
                photos.append(_align(photo, size) if align else photo.crop(BOX))
        except OSError as error:
            raise AssetError(
                f"the ORL faces in {folder} are incomplete: {error}. Unset FEDAUDIT_ASSET_ORL if "
                "you set it, and run: fedaudit assets fetch orl"
            ) from error
    return FaceSet(
        name="orl",
        images=to_tensor(photos, size),
        people=tuple(name.split("/")[0] for name in names),
        sources=tuple(names),
        terms=ASSETS["orl"].terms,
        public=True,
        attributes=(("glasses", _with_glasses()),),
    )


def _with_glasses() -> tuple[bool, ...]:
    """Of each of the 400 photos."""
    return tuple(
        str(photo) in GLASSES.get(person, "")
        for person in range(1, PEOPLE + 1)
        for photo in range(PHOTOS)
    )


def _align(photo: Image.Image, size: int) -> Image.Image:
    return align_photo(photo, find_faces(photo, _SIDES)[0].points, size)
