"""Read `.npz`: arrays by name, or numbered as by `np.savez(file, *arrays)`. Never a pickle."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from torch import Tensor

from fedaudit.captures.format.readers.limits import Limits, check_name, check_total
from fedaudit.captures.format.readers.npy import read_array
from fedaudit.captures.format.readers.zip_archive import finish, open_zip
from fedaudit.core.errors import CaptureError

NUMBERED = re.compile(r"arr_(\d{1,6})")


def read(path: Path, limits: Limits) -> dict[str, Tensor]:
    """The arrays; numbered ones in the order of their numbers.

    Raises:
        CaptureError: The file is damaged, holds anything but arrays of numbers, or goes beyond
            `limits`.
    """
    with open_zip(path, limits) as archive:
        members = archive.infolist()
        check_total(path, len(members), sum(m.file_size for m in members), limits)
        tensors: dict[str, Tensor] = {}
        for member in sorted(members, key=lambda member: _place(member.filename)):
            name = check_name(path, member.filename.removesuffix(".npy"), limits)
            if name in tensors:
                raise CaptureError(path, "it holds two arrays of that name", key=name)
            with archive.open(member) as file:
                size = member.file_size
                tensors[name] = read_array(path, name, cast(BinaryIO, file), size, limits)
                finish(path, name, file)
    return tensors


def is_numbered(tensors: Iterable[str]) -> bool:
    """Whether the names are only the places in a list."""
    return all(name == f"arr_{place}" for place, name in enumerate(tensors))


def _place(name: str) -> int:
    """Numbered arrays by number, for `arr_10` comes after `arr_9`; others stay as they are."""
    match = NUMBERED.fullmatch(name.removesuffix(".npy"))
    return int(match[1]) if match else -1
