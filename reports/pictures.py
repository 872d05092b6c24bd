"""Faces for the gallery, as small PNG data URIs. Only full evidence ever reaches this module."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from PIL import Image
from torch import Tensor

from fedaudit.reports.results import Exhibit, Results
from fedaudit.reports.view import worst_row

BUDGET = 2_000_000
"""Characters that all pictures of a page may take, so that the page stays below 3 MB."""
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


def trios(
    exhibits: tuple[Exhibit, ...], pictures: Mapping[tuple[str, int], Picture]
) -> tuple[Trio, ...]:
    """Pictures of all exhibits, in their order, at the largest size that fits the budget.

    Where even the smallest does not fit, the last exhibits go without.
    """
    shown: list[Trio] = []
    for side in SIDES:
        shown = [_trio(exhibit, pictures, side) for exhibit in exhibits]
        if sum(map(_size, shown)) <= BUDGET:
            return tuple(shown)
    spent = 0
    for position, trio in enumerate(shown):
        spent += _size(trio)
        if spent > BUDGET:
            shown[position] = Trio(None, None, None)
    return tuple(shown)


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


def _size(trio: Trio) -> int:
    return sum(len(uri or "") for uri in (trio.original, trio.reconstruction, trio.prior))
