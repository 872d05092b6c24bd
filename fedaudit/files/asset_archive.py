"""Unpack the needed members of an archive safely, and nothing else."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from fedaudit.core.errors import AssetError
from fedaudit.files.asset_table import Asset

MEMBER_LIMIT = 100 * 2**20
"""Bytes that one unpacked file may have; the largest that we need has 59 MB."""

_CHUNK = 2**20


def is_archive(path: Path) -> bool:
    """Whether a file is a zip (a wheel is one) or a tar, by content."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unpack(asset: Asset, archive: Path, folder: Path) -> None:
    """Write the members that `asset` names below `folder`, which is created.

    Raises:
        AssetError: The archive is unreadable, unsafe, or lacks a member.
    """
    try:
        with _open_archive(archive) as (names, read):
            members = [name for name in names if _is_needed(asset, name)]
            if len(members) != asset.count:
                raise AssetError(
                    f"{archive.name} holds {len(members)} of the {asset.count} files that asset "
                    f"{asset.name!r} needs; its layout is not the expected one."
                )
            for name in members:
                target = folder / name.removeprefix(asset.prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(read(name), target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise AssetError(f"{archive.name} cannot be read: {error}") from error


def _is_needed(asset: Asset, name: str) -> bool:
    parts = name.split("/")
    # An empty part is a leading or a double slash; cutting the prefix off could leave "/etc/…".
    if any(part in {"", ".", ".."} or "\\" in part or ":" in part for part in parts):
        raise AssetError(
            f"the archive of asset {asset.name!r} holds the unsafe name {name!r}; it is refused."
        )
    if not name.startswith(asset.prefix):
        return False
    inner = name.removeprefix(asset.prefix).split("/")
    patterns = [pattern.split("/") for pattern in asset.members]
    return any(
        len(inner) == len(pattern) and all(map(fnmatchcase, inner, pattern)) for pattern in patterns
    )


@contextmanager
def _open_archive(archive: Path) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
    """The member names of an archive, and what opens one of them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as container:
            yield [i.filename for i in container.infolist() if not i.is_dir()], container.open
        return
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar.getmembers() if not member.isdir()}

        def read(name: str) -> IO[bytes]:
            content = tar.extractfile(members[name]) if members[name].isfile() else None
            if content is None:
                raise AssetError(f"member {name!r} of the archive is a link or device: refused.")
            return content

        yield list(members), read


def _copy(source: IO[bytes], target: Path) -> None:
    """Copy in pieces and count: the sizes that an archive declares may be lies."""
    size = 0
    with source, target.open("xb") as file:
        while piece := source.read(_CHUNK):
            size += len(piece)
            if size > MEMBER_LIMIT:
                raise AssetError(f"member {target.name!r} unpacks to over {MEMBER_LIMIT} bytes.")
            file.write(piece)
