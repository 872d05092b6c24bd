"""Taking the pictures of people out of a run folder, and a run folder off the disk."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from fedaudit.core.errors import ConfigError, RunFolderError
from fedaudit.files import lease, regular_file
from fedaudit.files.atomic import MARK, storage_errors, write_atomically
from fedaudit.study import hash_list, manifest, signature
from fedaudit.study.calibration import numbers_file
from fedaudit.study.removal_record import FILE, REMOVABLE, Removal, read_removals
from fedaudit.study.run_folder import (
    CELLS,
    DAMAGED,
    EVIDENCE,
    FACTS,
    FAILED,
    MEASUREMENTS,
    MODELS,
    UNFINISHED,
)

KNOWN = frozenset(
    {CELLS, MODELS, MEASUREMENTS, EVIDENCE, DAMAGED, UNFINISHED, FAILED, FACTS, manifest.FILE, FILE}
    | {"why.json", "why.html", lease.FOLDER}
    | hash_list.UNLISTED
)
"""What lies in a run folder, galleries apart."""


def remove_evidence(folder: Path, by: str, reason: str, key: Path | None = None) -> Removal | None:
    """Delete what shows people in a run folder, and keep by hash what it was.

    Gone are reconstructions, originals, the templates of the gallery, pages with pictures, searches
    that were not finished and what was set aside as damaged. Numbers, hashes and trained models
    stay. The record is written first: an interrupted removal is ended by the next.

    Args:
        folder: A run folder.
        by: Who removes it.
        reason: Why.
        key: A private Ed25519 key in PEM that signs the record; none leaves it unsigned.

    Returns:
        What was removed; None where nothing was left to remove.

    Raises:
        ConfigError: A text is empty, or the key is none; the folder has no list of hashes.
        RunFolderError: Not a run folder, or another process works in it.
        StorageError: The folder may not be written.
    """
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip():
            raise ConfigError(f"--{name} must say something: a reader will hold you to it.")
    private = None if key is None else signature.read_private_key(key)
    manifest.read(folder)
    with lease.alone(folder):
        root = hash_list.root(folder)
        if not root:
            raise ConfigError(
                f"{str(folder)!r} has no {hash_list.FILE}, so that nothing could be accounted for. "
                "Finish the run: `fedaudit run` writes it. `fedaudit runs rm` without --evidence "
                "removes all of it."
            )
        before = read_removals(folder)
        names = list(_removable(folder))
        new = [name for name in names if not any(name in one.files for one in before)]
        removal = None
        if new:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            files = {name: regular_file.sha256(folder / name) for name in new}
            removal = Removal(by.strip(), reason.strip(), now, root, files)
            if private:
                removal = signature.signed(removal, private)
            content = [asdict(one) for one in (*before, removal)]
            text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
            write_atomically(folder / FILE, (text + "\n").encode())
        with storage_errors(folder):
            for name in names:
                (folder / name).unlink()
            for rest in (UNFINISHED, DAMAGED, "report.html"):  # written anew, without pictures
                _remove_tree(folder / rest)
    return removal


def _removable(folder: Path) -> Iterator[str]:
    """Files that may be removed; a gallery only where its numbers are kept beside it."""
    digests = hash_list.read(folder)
    inside = [folder, folder / CELLS, folder / EVIDENCE]
    for place in inside:
        if place.is_symlink() or not place.is_dir():
            continue
        for entry in sorted(place.iterdir()):
            name = entry.relative_to(folder).as_posix()
            is_needed = name.startswith("gallery") and numbers_file(name) not in digests
            if REMOVABLE.fullmatch(name) and not is_needed and entry.is_file():
                yield name


def remove_run(folder: Path) -> int:
    """Delete a run folder with all that is in it; returns how many bytes that were.

    Raises:
        RunFolderError: Not a run folder, one with other files in it, or one that another process
            works in.
        StorageError: It may not be deleted.
    """
    if folder.is_symlink() or not (folder / manifest.FILE).is_file():
        raise RunFolderError(
            f"{str(folder)!r} is not a run folder: it has no {manifest.FILE}, or is a link. "
            "`fedaudit runs ls` lists those that are."
        )
    if others := [e.name for e in sorted(folder.iterdir()) if not _is_known(e.name)]:
        raise RunFolderError(
            f"{str(folder)!r} holds files that are not a run's ({others[0]!r}). Move them "
            "elsewhere first."
        )
    with lease.alone(folder):
        size = sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
        # The manifest last: what an interruption leaves is still a run folder.
        for entry in folder.iterdir():
            if entry.name not in {manifest.FILE, lease.FOLDER}:
                with storage_errors(entry):
                    _remove_tree(entry)
    with storage_errors(folder):
        shutil.rmtree(folder)
    return size


def _is_known(name: str) -> bool:
    gallery = name.startswith("gallery") and name.endswith((".json", ".safetensors", ".age"))
    return name in KNOWN or gallery or name.startswith(MARK)


def _remove_tree(path: Path) -> None:
    """A file, or a folder with what is in it; of a link the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        os.unlink(path)
