"""Packages from npm that tests use and the project does not ship; without npm or network, skip."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest


def npm_package(name: str, folder: Path) -> Path:
    """Where `NAME@VERSION` lies unpacked below `folder`, so that Node finds it from there."""
    bare = name if "@" not in name[1:] else name[: name.rindex("@")]
    target = folder / "node_modules" / bare
    if target.exists():
        return target
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm on this computer, so no {bare}")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        (npm, "pack", name, "--silent"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    packed = folder / done.stdout.strip().splitlines()[-1] if done.stdout.strip() else None
    if done.returncode or packed is None or not packed.exists():
        pytest.skip(f"npm cannot fetch {bare}: no network")
    with tarfile.open(packed) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / "unpacked" / "package").rename(target)
    return target
