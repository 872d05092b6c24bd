"""`SHA256SUMS`: the hashes of a run folder's files as the run wrote them, one line a file.

Whoever edits a cell can write a hash that fits into the cell; here the edit shows. The file is of
the kind that `sha256sum -c` checks. Its own hash, the root, stands in `results.json`: compared with
a root that came another way, it vouches for the whole folder. What follows from the files
(`results.json`, `report.html`) and the log are not in it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.files import regular_file
from fedaudit.files.atomic import MARK, write_atomically
from fedaudit.files.lease import FOLDER as LEASES
from fedaudit.study import removal_record
from fedaudit.study.run_folder import DAMAGED, FAILED, LOG, UNFINISHED

FILE = "SHA256SUMS"
RENDERED = ("results.json", "report.html")
"""What `fedaudit report` makes of the others."""
UNLISTED = frozenset({FILE, LOG, "signoff.json", removal_record.FILE, *RENDERED})
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\n]{1,400})")


@dataclass(frozen=True)
class Differences:
    """How a folder's files differ from its list, by their names; `added` are not in the list."""

    altered: tuple[str, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]


def read(folder: Path) -> dict[str, str]:
    """SHA-256 of each listed file by its name in the folder; empty where there is no list.

    Raises:
        RunFolderError: The list is damaged.
    """
    try:
        text = regular_file.read_bytes(folder / FILE).decode(errors="replace")
    except FileNotFoundError:
        return {}
    matches = [_LINE.fullmatch(line) for line in text.split("\n") if line]
    digests = {match[2]: match[1] for match in matches if match}
    if len(digests) != len(matches):
        raise RunFolderError(
            f"{str(folder / FILE)!r} is damaged: it is no list of hashes. Restore it from a "
            "backup. Without it (delete it) an edited cell may go unnoticed."
        )
    return digests


def root(folder: Path) -> str:
    """SHA-256 of the list; "" where there is none."""
    try:
        return regular_file.sha256(folder / FILE)
    except FileNotFoundError:
        return ""


def record(folder: Path, renewed: Collection[str] = ()) -> None:
    """Add the hashes of new files to the list.

    Args:
        folder: A run folder that this process holds.
        renewed: Names of files that the run has just written, whose lines are written anew; those
            of all others stay as they are.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    try:
        before = read(folder)
    except RunFolderError:
        before = {}
    rest = {name: digest for name, digest in before.items() if name not in renewed}
    new = {name: _digest(folder / name) for name in _names(folder) if name not in rest}
    _write(folder, new | rest)


def forget(folder: Path, names: Collection[str]) -> None:
    """Take files off the list that are about to be computed again.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    digests = read(folder)
    rest = {name: digest for name, digest in digests.items() if name not in names}
    if len(rest) < len(digests):
        _write(folder, rest)


def _write(folder: Path, digests: Mapping[str, str]) -> None:
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests) if digests[name])
    write_atomically(folder / FILE, lines.encode("utf-8", "surrogateescape"))


def compare(folder: Path, listed: Mapping[str, str]) -> Differences:
    """Hash every file of a folder, and name those that are neither as listed nor accounted for.

    Files that `removal.json` names by the hash of the list are accounted for.
    """
    names, removals = set(_names(folder)), removal_record.removed_files(folder)
    listed = {n: sha for n, sha in listed.items() if n in names or removals.get(n) != sha}
    return Differences(
        altered=tuple(n for n in sorted(names & listed.keys()) if is_altered(folder, n, listed)),
        missing=tuple(sorted(listed.keys() - names)),
        added=tuple(sorted(names - listed.keys())),
    )


def is_altered(folder: Path, name: str, listed: Mapping[str, str]) -> bool:
    """Whether a file is listed and not what was listed."""
    return name in listed and _digest(folder / name) != listed[name]


def altered_beside_cells(folder: Path) -> tuple[str, ...]:
    """The altered files of the folder itself, such as the study and the gallery."""
    differences = compare(folder, {n: sha for n, sha in read(folder).items() if "/" not in n})
    return tuple(sorted((*differences.altered, *differences.missing)))


def _names(folder: Path) -> Iterator[str]:
    """What lies in a folder and the folders in it, links and pipes included."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if entry.name not in {DAMAGED, UNFINISHED, FAILED, LEASES}:
                yield from (f"{entry.name}/{e.name}" for e in entry.iterdir() if _counts(e))
        elif entry.name not in UNLISTED and _counts(entry):
            yield entry.name


def _counts(entry: Path) -> bool:
    return not entry.name.startswith(MARK)


def _digest(path: Path) -> str:
    """SHA-256 of a file; "" where there is no readable regular file."""
    try:
        return regular_file.sha256(path)
    except (OSError, RunFolderError):
        return ""
