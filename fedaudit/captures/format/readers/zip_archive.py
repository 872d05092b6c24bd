"""Look into a zip archive of a stranger: nothing is unpacked to disk, and sizes are checked first.

Members are looked up by name and read into memory one by one; a name like `../../x` is only text.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fedaudit.captures.format.readers.limits import Limits, check_file
from fedaudit.core.errors import CaptureError

_DIRECTORY = 12 << 20
"""Bytes of a table of contents that is read: 600 each of as many members as `Limits` allow."""
_KINDS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@contextmanager
def open_zip(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """An archive whose members together stay within `limits`.

    Everything that reading a damaged member raises inside the `with` block becomes `CaptureError`.

    Raises:
        CaptureError: No archive, a bomb, encrypted or compressed in unusual ways, or damaged.
    """
    size = check_file(path, limits)
    _check_directory(path, size)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, size, archive.infolist(), limits)
            yield archive
    except CaptureError:
        raise
    # zipfile lets through what its parts raise on damaged input.
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        IndexError,
        KeyError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        UnicodeError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:
        raise CaptureError(path, f"the archive is damaged: {str(error)[:200]}") from error


def read_member(
    path: Path, archive: zipfile.ZipFile, name: str, *, at_most: int | None = None
) -> bytes:
    """All bytes of a member, whose checksum is compared.

    Raises:
        CaptureError: There is no such member, or it is larger than it may be.
    """
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        raise CaptureError(path, f"the archive lacks {name[:80]!r}") from error
    if at_most is not None and member.file_size > at_most:
        raise CaptureError(path, f"{name[:80]!r} has {member.file_size:,} bytes: too many")
    with archive.open(member) as file:
        content = file.read(member.file_size)  # without a size, all that it inflates to
        finish(path, name, file)
    if len(content) != member.file_size:
        raise CaptureError(path, f"{name[:80]!r} is cut off")
    return content


def finish(path: Path, name: str, file: IO[bytes]) -> None:
    """Compare a member's checksum, at its end.

    Raises:
        CaptureError: It goes on.
    """
    if file.read(1):
        raise CaptureError(path, f"{name[:80]!r} is longer than the archive says")


def _check_members(path: Path, size: int, members: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(members) > limits.tensors + 100:
        raise CaptureError(path, f"the archive has {len(members):,} members: too many")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise CaptureError(path, "the archive has two members of one name")
    total = sum(member.file_size for member in members)
    for member in members:
        if member.flag_bits & 0x1 or member.compress_type not in _KINDS:
            raise CaptureError(
                path, f"{member.filename[:80]!r} is encrypted or compressed in an unusual way"
            )
        if member.file_size > limits.total_bytes:
            raise CaptureError(
                path,
                f"{member.filename[:80]!r} unpacks to {member.file_size:,} bytes, and "
                f"{limits.at_most(limits.total_bytes)}",
            )
    if total > limits.total_bytes + limits.small:
        raise CaptureError(
            path, f"it unpacks to {total:,} bytes, and {limits.at_most(limits.total_bytes)}"
        )
    if total > limits.small and total > limits.ratio * size:
        raise CaptureError(
            path,
            f"its {size:,} bytes unpack to {total:,}: an archive bomb, or numbers that are all but "
            "constant. If you trust it, save it without compression",
        )


def _check_directory(path: Path, size: int) -> None:
    """The table of contents is read as a whole, so its size is looked at first."""
    with path.open("rb") as file:
        file.seek(max(0, size - 65_600))
        tail = file.read(65_600)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) < place + 22:
        raise CaptureError(path, "it is cut off, or no archive")
    length = struct.unpack_from("<L", tail, place + 12)[0]
    large = tail.rfind(b"PK\x06\x06", 0, place)  # zip64 has a record of its own before it
    if length == 0xFFFFFFFF and large >= 0 and len(tail) >= large + 56:
        length = struct.unpack_from("<Q", tail, large + 40)[0]
    if length > _DIRECTORY:
        raise CaptureError(path, f"its table of contents has {length:,} bytes: too many")
