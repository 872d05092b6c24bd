"""SHA-256 of assets: of a file, a list of files, a user's own copy, and of tensors in a file."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fedaudit.files import asset_sources


def digest_of_copy(own: Path) -> str:
    """SHA-256 of a user's own copy of an asset: of the file, or over the list of a folder's."""
    if own.is_file():
        return asset_sources.sha256(own)
    files = (file for file in own.rglob("*") if file.is_file())
    return digest_of_list({f.relative_to(own).as_posix(): asset_sources.sha256(f) for f in files})


def digest_of_list(hashes: Mapping[str, str]) -> str:
    """SHA-256 over a list of files, from the hash of each by its path."""
    lines = "".join(f"{member} {hashes[member]}\n" for member in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=64)
def digest_of_tensors(file: Path, *state: int) -> str:
    """SHA-256 of the tensors of a safetensors file, whatever its bytes.

    Computed once a process while `state` stays the same: the file's size and times.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - slow, and few assets need it
    from safetensors.torch import load_file  # noqa: PLC0415 - imports torch

    del state
    digest = hashlib.sha256()
    try:
        for name, tensor in sorted(load_file(file).items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    except SafetensorError:
        return ""
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def digest_of_file(file: Path, size: int, mtime: int, ctime: int) -> str:
    """SHA-256 of a file, computed once a process while size and times stay the same."""
    del size, mtime, ctime
    return asset_sources.sha256(file)
