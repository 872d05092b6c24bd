"""Where the files of a capture lie: a folder a round, in it a file a message."""

import hashlib
import re
from pathlib import Path


def slug(name: str) -> str:
    """A file name for a client's name: readable, safe, and different for different names.

    >>> slug("../../etc/passwd")
    'etc-passwd-3754d6cb'
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "client"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{readable}-{digest}"


def round_folder(folder: Path, number: int) -> Path:
    """The folder of a round's messages."""
    return folder / f"round-{number:06d}"


def broadcast_file(folder: Path, client: str | None) -> Path | None:
    """The broadcast in a round's folder: to that client, if it was sent something of its own."""
    names = ["broadcast.safetensors"]
    if client is not None:
        names.insert(0, f"broadcast-{slug(client)}.safetensors")
    return next((folder / name for name in names if (folder / name).exists()), None)
