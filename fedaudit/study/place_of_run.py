"""Whether a run folder can be made where the user wants it, tried or told beforehand."""

import os
from pathlib import Path

from fedaudit.core.errors import UsageError
from fedaudit.files.atomic import storage_errors


def make_folder(path: Path) -> None:
    """Make a run folder, and its parents, unless it is there.

    Raises:
        UsageError: It cannot be made there.
        StorageError: The disk is full or may not be written.
    """
    try:
        with storage_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:  # not of the disk: nothing can be made there
        raise _refusal(path, error.strerror or str(error)) from error


def check_place(path: Path) -> None:
    """Look where a run folder would be made, and make nothing.

    Raises:
        UsageError: Nobody, or not this user, can make it there.
    """
    parent = path.absolute()
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise _refusal(path, f"{str(parent)!r} is no folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _refusal(path, f"{str(parent)!r} may not be written")
    if hasattr(os, "statvfs"):
        disk = os.statvfs(parent)
        if disk.f_blocks == disk.f_files == 0:  # what the kernel shows, such as /proc
            raise _refusal(path, f"{str(parent)!r} holds no files of users")


def _refusal(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"cannot make the run folder {str(path)!r}: {reason[:1].lower()}{reason[1:]}. Choose "
        "another --output."
    )
