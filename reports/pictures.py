"""Faces for the gallery, as small PNG data URIs. Only full evidence ever reaches this module."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from typing import TypeVar

from PIL import Image
from torch import Tensor

from fedaudit.reports.results import EvidenceMatrix, EvidenceRow, Exhibit, Results
from fedaudit.reports.view import worst_row

A = TypeVar("A")
B = TypeVar("B")
BUDGET = 1_000_000
"""Characters that the pictures of the gallery may take, and those of the matrices, so that the page
stays below 3 MB."""
SIDES = (128, 96, 64, 48, 32)
"""Longest sides in pixels that are tried, largest first, until the pictures fit the budget."""


@dataclass(frozen=True)
class Picture:
    """What one cell made of one image.

    Attributes:
        original: `[C, H, W]` in [0, 1], C = 1 or 3; None where it is not at hand.
        reconstruction: The same shape and range.
    """

    original: Tensor | None
    reconstruction: Tensor


@dataclass(frozen=True)
class Trio:
    """Data URIs of one exhibit; None where there is no such picture."""

    original: str | None
    reconstruction: str | None
    prior: str | None


def data_uri(image: Tensor, side: int) -> str:
    """A PNG of `image` (`[C, H, W]` in [0, 1]), no longer than `side` pixels on its longer side."""
    pixels = (image.detach().cpu().float().nan_to_num().clamp(0, 1) * 255).round().byte()
    array = pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Strip:
    """Data URIs of one row of the evidence matrix; None where there is no such picture."""

    original: str | None
    reconstructions: tuple[str | None, ...]


def trios(
    exhibits: tuple[Exhibit, ...], pictures: Mapping[tuple[str, int], Picture]
) -> tuple[Trio, ...]:
    """Pictures of all exhibits, in their order, at the largest size that fits the budget.

    Where even the smallest does not fit, the last exhibits go without.
    """
    images = _fitting(exhibits, lambda exhibit, side: _trio(exhibit, pictures, side), _size)
    return tuple(trio or Trio(None, None, None) for trio in images)


def strips(
    matrices: tuple[EvidenceMatrix, ...], pictures: Mapping[tuple[str, int], Picture]
) -> tuple[tuple[Strip, ...], ...]:
    """Pictures of all evidence matrices, row by row; they fit the budget as `trios` do."""
    rows = [row for matrix in matrices for row in matrix.rows]
    images = _fitting(rows, lambda row, side: _strip(row, pictures, side), _strip_size)
    stream = iter(images)
    without = [Strip(None, (None,) * len(matrix.columns)) for matrix in matrices]
    return tuple(
        tuple(next(stream) or blank for _ in matrix.rows)
        for matrix, blank in zip(matrices, without, strict=True)
    )


def _fitting(
    things: Sequence[A], draw: Callable[[A, int], B], size: Callable[[B], int]
) -> list[B | None]:
    """Each thing drawn at the largest size at which all fit the budget; None for what does not."""
    images: list[B] = []
    for side in SIDES:
        images = [draw(thing, side) for thing in things]
        if sum(map(size, images)) <= BUDGET:
            return list(images)
    sizes = [size(one) for one in images]
    totals = accumulate(sizes)
    return [one if so_far <= BUDGET else None for one, so_far in zip(images, totals, strict=True)]


def worst_pair(results: Results, pictures: Mapping[tuple[str, int], Picture]) -> Trio | None:
    """The pair behind the highest identity cosine of the study."""
    row = worst_row(results)
    worst = row.measurement.worst if row and row.measurement else None
    picture = pictures.get((worst.cell, worst.image)) if worst else None
    if picture is None:
        return None
    original = None if picture.original is None else data_uri(picture.original, SIDES[0])
    return Trio(original, data_uri(picture.reconstruction, SIDES[0]), None)


def _trio(exhibit: Exhibit, pictures: Mapping[tuple[str, int], Picture], side: int) -> Trio:
    own = pictures.get((exhibit.cell, exhibit.image))
    prior = pictures.get((exhibit.prior_cell or "", exhibit.image))
    original = own.original if own else None
    if original is None and prior:
        original = prior.original
    return Trio(
        original=None if original is None else data_uri(original, side),
        reconstruction=data_uri(own.reconstruction, side) if own else None,
        prior=data_uri(prior.reconstruction, side) if prior else None,
    )


def _strip(row: EvidenceRow, pictures: Mapping[tuple[str, int], Picture], side: int) -> Strip:
    mine = [pictures.get((cell.cell, cell.image)) if cell else None for cell in row.cells]
    originals = [picture.original for picture in mine if picture]
    original = next((image for image in originals if image is not None), None)
    return Strip(
        None if original is None else data_uri(original, side),
        tuple(data_uri(p.reconstruction, side) if p else None for p in mine),
    )


def _strip_size(strip: Strip) -> int:
    return sum(len(uri or "") for uri in (strip.original, *strip.reconstructions))


def _size(trio: Trio) -> int:
    return sum(len(uri or "") for uri in (trio.original, trio.reconstruction, trio.prior))
