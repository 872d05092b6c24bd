"""One `run` at a time in a run folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.files.atomic import storage_errors

FILE = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process ends, however it ends.

    Raises:
        RunFolderError: Another process holds it.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where two runs are not kept apart
    except ImportError:
        yield
        return
    with storage_errors(folder / FILE):
        handle = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise RunFolderError(
                f"another fedaudit run (process {holder}) works in {str(folder)!r}. Wait for it, "
                "stop it, or choose another folder with --output."
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
