"""Archives of a few toys, and the asset that pins one of them."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedaudit.files.asset_table import Asset

CONTENT = {
    "toys-1.0/toys/a/1.txt": b"one",
    "toys-1.0/toys/a/2.txt": b"two",
    "toys-1.0/toys/b/1.txt": b"three",
    "toys-1.0/toys/a/notes.md": b"not needed",
    "toys-1.0/setup.py": b"raise SystemExit('never run')",
}


def zipped(path: Path, content: Mapping[str, bytes] = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, content: Mapping[str, bytes] = CONTENT, *links: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for link in links:
            archive.addfile(link)
    return path


def asset_of(archive: Path, **changes: object) -> Asset:
    toys = Asset(
        name="toys",
        registry="pypi",
        package="toys",
        version="1.0",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        bytes=archive.stat().st_size,
        prefix="toys-1.0/toys/",
        members=("*/*.txt",),
        count=3,
        entry="",
        purpose="playing",
        terms="none",
    )
    return replace(toys, **changes)  # type: ignore[arg-type]
