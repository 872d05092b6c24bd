"""Atomic writes: a file is there whole or not at all, whatever happens meanwhile."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedaudit.core.errors import StorageError

MARK = ".part-"
"""Prefix of files that are being written; what is left of them after a crash may be deleted."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.EROFS: "the file system is read-only",
    errno.EISDIR: "a folder stands there",
    errno.ENOTDIR: "a file stands where a folder should",
    errno.ENOTEMPTY: "a folder stands there",
    errno.EEXIST: "something else stands there",
    errno.ELOOP: "it is a link, which is not followed",
    errno.ENXIO: "it is a pipe",
    errno.EIO: "the device reports an input/output error",
}


def storage_error(error: OSError, path: Path | str | None = None) -> StorageError | None:
    """What to tell the user of an `OSError` of the disk; None if it is of another kind."""
    reason = _REASONS.get(error.errno or 0)
    if reason is None:
        return None
    place = path or error.filename
    where = f"cannot write {str(place)!r}" if place else "cannot write"
    return StorageError(
        f"{where}: {reason}. Nothing that was finished is lost: make room or correct the "
        "permissions, then give the same command again to go on."
    )


@contextlib.contextmanager
def storage_errors(path: Path | str | None = None) -> Iterator[None]:
    """Turn the disk's `OSError`s into `StorageError`."""
    try:
        yield
    except OSError as error:
        if failure := storage_error(error, path):
            raise failure from error
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content, the new one, or no file; mode 0600.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    with storage_errors(path):
        # In the same folder, because only there is the replacement atomic.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=MARK)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def append_line(path: Path, line: str) -> None:
    """Append one line. A crash may leave half a line, which readers must skip.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    with storage_errors(path):
        # A link would lead elsewhere, and a pipe would hang.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | flags, 0o600)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EEXIST, "Not a regular file", str(path))
        with os.fdopen(handle, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write(b"\n" * torn + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def sweep(folder: Path) -> None:
    """Delete what interrupted writes left in a folder and the folders in it but hidden ones."""
    with storage_errors(folder):
        for leftover in [*folder.glob(f"{MARK}*"), *folder.glob(f"[!.]*/{MARK}*")]:
            if leftover.parent == folder or not leftover.parent.is_symlink():
                leftover.unlink(missing_ok=True)
