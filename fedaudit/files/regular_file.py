"""Read files that others may have put there: regular ones of a bounded size, and nothing else.

A named pipe would hang whoever opens it, a device never ends, and a link leads out of the folder.
Nothing is mapped: a mapped file that is cut off meanwhile ends the process.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from fedaudit.core.errors import RunFolderError

LARGEST_TEXT = 64 << 20
LARGEST = 2 << 30
"""Bytes. A model of half a billion parameters fits, and is hashed in seconds."""
_CHUNK = 1 << 20


def read_bytes(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """All of a regular file.

    Raises:
        FileNotFoundError: There is none.
        RunFolderError: It is a link, a folder, a pipe or a device, too large, or not readable.
    """
    with _open(path, largest) as file:
        return b"".join(iter(lambda: file.read(_CHUNK), b""))


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: There is none.
        RunFolderError: As `read_bytes`, or it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"is no JSON ({str(error)[:200]})") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        FileNotFoundError: There is none.
        RunFolderError: As `read_bytes`, or it is no safetensors file.
    """
    return tensors_in(read_bytes(path, LARGEST), path)


def tensors_in(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the bytes of a safetensors file.

    Raises:
        RunFolderError: They are none; the message names `path`.
    """
    try:
        tensors = safetensors.torch.load(content)
        about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, dict(about.get("__metadata__") or {})
    except Exception as error:  # a hostile header fails in safetensors' and torch's own ways
        raise _refusal(path, "holds no tensors that can be read") from error


def sha256(path: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal; it raises as `read_bytes` does."""
    digest = hashlib.sha256()
    with _open(path, LARGEST) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _open(path: Path, largest: int) -> Iterator[FileIO]:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        with FileIO(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise _refusal(path, "is no regular file")
            if about.st_size > largest:
                raise _refusal(path, f"has {about.st_size:,} bytes, more than {largest:,}")
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        what = "is a link" if path.is_symlink() else f"cannot be read ({error.strerror or error})"
        raise _refusal(path, what) from error
    except ValueError as error:  # a NUL in its name
        raise _refusal(path, f"cannot be read ({error})") from error


def _refusal(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{str(path)!r} is damaged: it {what}. Restore it from a backup, or run the study again "
        "with another --output."
    )
