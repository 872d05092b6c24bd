"""One process at a time works in a folder."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fedaudit.core.errors import RunFolderError
from fedaudit.files.atomic import storage_errors, write_atomically

FILES = (".lock", ".lock-holder")
"""What a lock leaves in a folder: the locked file, and the number of the process that locked it."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process ends, however it ends.

    Raises:
        RunFolderError: Another process holds it.
    """
    file, holder = (folder / name for name in FILES)
    for one in (file, holder):
        if one.is_symlink() or (one.exists() and not one.is_file()):
            raise RunFolderError(
                f"{str(one)!r} is a link or no regular file, and no lock of fedaudit is. Delete it "
                "if you trust the folder."
            )
    lock = FileLock(file, timeout=0, mode=0o600)
    with storage_errors(file):
        try:
            lock.acquire()
        except Timeout as error:
            digits = re.sub(rb"[^0-9]", b"", holder.read_bytes()[:20]) if holder.exists() else b""
            process = digits.decode() or "unknown"
            raise RunFolderError(
                f"another fedaudit run (process {process}) works in {str(folder)!r}. Wait for it, "
                "stop it, or choose another folder with --output."
            ) from error
    try:
        write_atomically(holder, str(os.getpid()).encode())
        yield
    finally:
        lock.release()
