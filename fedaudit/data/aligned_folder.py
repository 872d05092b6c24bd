"""Photos of a folder, each aligned by the face that it shows; kept, as this takes minutes."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from fedaudit.core.errors import DataError, StorageError
from fedaudit.data.alignment import TEMPLATE_SIZE, align, square_of
from fedaudit.data.crop import resize, to_pixels
from fedaudit.data.face_detector import SIDES, Face, find_faces
from fedaudit.data.heic import HEIC_EXTRA, is_unread_heic, reads_heic
from fedaudit.data.subject import by_prominence, may_lead
from fedaudit.files.cache import digest_of, key_of, load_or_learn

T = TypeVar("T")

KEPT_SIZE = 224
"""Pixels at which aligned photos are kept; larger ones are aligned anew."""
VERSION = 6
"""To be raised where the same photos would be aligned otherwise."""
SMALLEST = 24
"""Pixels of a face's width below which it is left out: it would be nothing but blur."""
SURE, SURER = 0.92, 0.03
"""Score of a face that is taken for upright at once, and by how much another turn must be better.
Upright portraits of p02, p05 and p07 of OpenPeople score 0.94 to 0.96, turned ones 0.71 to 0.90."""

SEARCHED = 1200
"""Pixels of the shorter side at which a JPEG is searched at least: to decode a half takes half the
time, and only where the face then has too few pixels the photo is read whole."""

FINER = 1.5
"""Times the pixels along a side that the detector looks at: of more, blocks are averaged first. It
saves a fifth of the search and moves points by 0.3 % of the face's width at most (29 faces in
scenes of `benchmarks/phone_photos.py`, of which it finds the same)."""

Read = Callable[[Path, int], Image.Image]
"""Gives an upright photo, of so many pixels at least where there are, or raises `DataError`."""
Watch = Callable[[int, int], None]
"""Takes how many photos are done, and of how many."""

_UNREAD, _SMALL, _HEIC = -1, -2, -3  # in place of the number of faces
_WHY = {
    0: "shows no face",
    _UNREAD: "cannot be read",
    _SMALL: "shows only tiny faces",
    _HEIC: f"is HEIC, which needs: {HEIC_EXTRA}",
}
_PLURALS = {
    "shows no": "show no",
    "shows only": "show only",
    "shows several": "show several",
    "is HEIC, which needs": "are HEIC, which need",
    "is its person's": "are their person's",
    "was turned": "were turned",
}


@dataclass(frozen=True)
class Alignment:
    """Which photos of a folder show a face, which were turned, and which are left out.

    Attributes:
        sources: Of the photos that show a face, in the order of the images.
        left_out: Sources of the others, each with the reason.
        several: Sources of those that show more than one face; the most prominent was taken.
        turned: Sources of those that lay on a side or upside down, and say nothing of it.
    """

    sources: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    several: tuple[str, ...]
    turned: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report says of it, without names."""
        count = len(self.sources) + len(self.left_out)
        why = [reason for _, reason in self.left_out]
        reasons = ", ".join(in_number(why.count(one), one) for one in dict.fromkeys(why))
        rest = []
        if self.several:
            several = in_number(len(self.several), "shows several faces")
            rest.append(
                f"{several}, of which the most prominent is taken (large, in focus, near the "
                "middle)."
            )
        if self.turned:
            rest.append(f"{in_number(len(self.turned), 'lay on a side and was turned')}.")
        words = f"Photos are aligned by five points of the face: {len(self.sources)} of {count}"
        return (" ".join([words + (f"; left out: {reasons}." if why else "."), *rest]),)


def in_number(count: int, reason: str) -> str:
    """What is said of one photo, said of so many.

    >>> in_number(1, "shows no face"), in_number(3, "shows no face")
    ('1 shows no face', '3 show no face')
    """
    if count != 1:
        for one, many in _PLURALS.items():
            reason = reason.replace(one, many)
    return f"{count} {reason}"


def aligned_photos(
    files: Mapping[str, Path],
    size: int,
    root: str,
    read: Read,
    watch: Watch = lambda number, total: None,
) -> tuple[Tensor, Alignment]:
    """Faces `[n, 3, size, size]` in [0, 1] of photos by source, and which photos show one.

    They are kept in the user's cache under a hash of the files, listed by `fedaudit cache ls`: at
    one size, from which smaller ones are made, so that faces are looked for once.

    Args:
        files: Photos by source.
        size: Side of the faces in pixels.
        root: Folder of the photos, for the list of what is kept.
        read: Gives the photos.
        watch: Called from time to time while faces are looked for.
    """
    side = max(size, KEPT_SIZE)

    def make() -> dict[str, Tensor]:
        faces, counts, turns = [], [], []
        for face, count, turn in _in_threads(lambda file: _face(file, side, read), files.values()):
            faces.append(face)
            counts.append(count)
            turns.append(turn)
            watch(len(faces), len(files))
        return {
            "faces": torch.stack(faces),
            "counts": torch.tensor(counts),
            "turns": torch.tensor(turns),
        }

    digests = tuple(zip(files, _in_threads(digest_of, files.values()), strict=True))
    key = key_of({}, "aligned folder", VERSION, side, digests, reads_heic())
    try:
        arrays = load_or_learn(key, make, None, what=f"aligned photos, {side} px", photos=root)
    except StorageError:
        arrays = make()
    counts, turns = arrays["counts"].tolist(), arrays["turns"].tolist()
    rows = list(zip(files, counts, turns, strict=True))
    alignment = Alignment(
        sources=tuple(source for source, count, _ in rows if count > 0),
        left_out=tuple((source, _WHY[count]) for source, count, _ in rows if count <= 0),
        several=tuple(source for source, count, _ in rows if count > 1),
        turned=tuple(source for source, count, turn in rows if count > 0 and turn),
    )
    pixels = arrays["faces"][arrays["counts"] > 0].float().div(255)
    return torch.cat([resize(part, size) for part in torch.split(pixels, 100)]), alignment


def _in_threads(do: Callable[[Path], T], files: Iterable[Path]) -> Iterator[T]:
    """What `do` gives for each file, in order; a file a core, so that torch needs no threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(do, files)
    finally:
        torch.set_num_threads(threads)


def _face(file: Path, side: int, read: Read) -> tuple[Tensor, int, int]:
    """The subject's face `[3, side, side]` uint8, of how many, and by what it was turned."""
    nothing = torch.zeros(3, side, side, dtype=torch.uint8)
    try:
        turn, upright, faces = _upright(read(file, SEARCHED))
        if not faces:
            return nothing, 0, 0
        subject, *others = by_prominence(upright, faces)
        vague = [one for one in others if _side(one) < TEMPLATE_SIZE]
        few = _side(subject) < side or any(may_lead(upright, one, subject) for one in vague)
        if few and min(upright.size) >= SEARCHED:
            whole = read(file, 0)
            whole = whole.rotate(turn, expand=True) if turn else whole
            larger = whole.width / upright.width
            upright, faces = whole, tuple(_scaled(face, larger) for face in faces)
            subject = by_prominence(upright, faces)[0]
    except DataError:
        return nothing, _HEIC if is_unread_heic(file) else _UNREAD, 0
    if faces[0].width < SMALLEST:
        return nothing, _SMALL, 0
    return to_pixels([align(upright, subject.points, side)])[0], len(faces), turn


def _side(face: Face) -> float:
    """Pixels of a side of the square that is cut out."""
    return square_of(face.points)[2]


def _scaled(face: Face, by: float) -> Face:
    left, top, right, bottom = (place * by for place in face.box)
    points = tuple((x * by, y * by) for x, y in face.points)
    return replace(face, box=(left, top, right, bottom), points=points)


def _upright(photo: Image.Image) -> tuple[int, Image.Image, tuple[Face, ...]]:
    """The quarter turn under which the detector is surest, the photo so turned, and its faces."""
    factor = int(max(photo.size) / (FINER * max(SIDES)))
    small = photo.reduce(factor) if factor > 1 else photo
    turn, faces = _surest_turn(small)
    upright = photo.rotate(turn, expand=True) if turn else photo
    larger = max(photo.size) / max(small.size)
    return turn, upright, tuple(_scaled(face, larger) for face in faces)


def _surest_turn(photo: Image.Image) -> tuple[int, tuple[Face, ...]]:
    """Faces that lie on a side are taken for upright ones, less surely, with misplaced points."""
    best = 0, find_faces(photo)
    if _score(best[1]) >= SURE:
        return best
    for turn in (90, 270, 180):
        faces = find_faces(photo.rotate(turn, expand=True))
        if _score(faces) > _score(best[1]) + SURER:
            best = turn, faces
    return best


def _score(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)  # the largest may be a blur behind
