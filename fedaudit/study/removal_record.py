"""`removal.json`: which pictures of people were taken out of a run folder, when, and by whom.

The list of hashes stays as the run wrote it, so that its root, and whoever signed for it, still
hold. A file that is gone is accounted for where the record names it by the hash of that list; no
other file can be.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.files import regular_file
from fedaudit.study import signature
from fedaudit.study.signature import Statement
from fedaudit.study.stored_values import read_as

FILE = "removal.json"
REMOVABLE = re.compile(
    r"(cells|evidence)/[^/]+\.safetensors(\.age)?|gallery[^/]*\.safetensors(\.age)?|why\.html"
)
"""Names of files that show people or hold templates of their faces; everything else is kept."""


@dataclass(frozen=True)
class Removal(Statement):
    """One removal, in the words of who made it.

    Attributes:
        by: Who removed the files.
        reason: Why.
        removed: ISO time, UTC.
        root: SHA-256 of the list of hashes that the files stand in.
        files: SHA-256 of each file as it was when it was removed, by its name in the folder.
    """

    by: str
    reason: str
    removed: str
    root: str
    files: Mapping[str, str]

    @property
    def sentence(self) -> str:
        """What a reader is told of it."""
        by_key = f", signed with key {self.key}" if self.key else ""
        return (
            f"evidence removed on {self.removed[:10]} by {self.by} ({self.reason}): "
            f"{len(self.files)} files{by_key}"
        )


def read_removals(folder: Path) -> tuple[Removal, ...]:
    """The removals of a run folder, the first one first; () where nothing was removed.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = folder / FILE
    try:
        return read_as(tuple[Removal, ...], regular_file.read_json(path), path)
    except FileNotFoundError:
        return ()


def removed_files(folder: Path) -> dict[str, str]:
    """SHA-256 of what was removed, by name; nothing but what may be removed."""
    files = {name: sha for one in read_removals(folder) for name, sha in one.files.items()}
    return {name: sha for name, sha in files.items() if REMOVABLE.fullmatch(name)}


def faults_of(folder: Path, root: str) -> Iterator[str]:
    """What is wrong with the record of removals, a sentence each.

    Args:
        folder: The run folder.
        root: SHA-256 of its list of hashes.
    """
    try:
        removals = read_removals(folder)
    except RunFolderError as error:
        yield str(error)
        return
    for one in removals:
        if one.root != root:
            yield f"{FILE} is of another state of this folder: its root differs."
        if (one.signature or one.key) and not signature.holds(one):
            yield f"A signature in {FILE} does not fit what it says."
        for name in one.files:
            if not REMOVABLE.fullmatch(name):
                yield f"{FILE} names {name}, which shows nobody and is never removed."
            elif (folder / name).exists():
                yield (
                    f"{name} is there, and {FILE} says that it was removed. The removal was "
                    "interrupted (`fedaudit runs rm --evidence` ends it), or the file was put back."
                )
