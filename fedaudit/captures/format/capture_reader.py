"""Read a recorded capture: streaming, one message in memory at a time, every file a stranger's."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from fedaudit.captures.format.capture_facts import Facts, first_problem, merge
from fedaudit.captures.format.capture_manifest import VERSION, Manifest, manifests
from fedaudit.captures.format.capture_paths import broadcast_file, round_folder
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.format.stored_message import StoredMessage, open_message
from fedaudit.captures.format.tensor_names import Renaming
from fedaudit.core.errors import CaptureError, UsageError

LARGEST = 8_000_000
"""Bytes of a manifest."""
_ROUND = re.compile(r"round-(\d{1,9})")


@dataclass(frozen=True)
class Problem:
    """Something in a capture that cannot be used; the rest of it can.

    Attributes:
        file: Path within the capture.
        reason: What is wrong, in a sentence.
        key: The tensor or fact, where it is about one.
    """

    file: str
    reason: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {f'{self.key!r}: ' if self.key else ''}{self.reason}"


class StoredCapture:
    """A capture on disk.

    Args:
        folder: The capture.
        limits: What its files may take.
        renaming: What names in it are in the model; `observations` reads them so.

    Attributes:
        manifest: The facts, and when they were recorded.
        problems: Files that could not be used so far; grows while the capture is read.

    Raises:
        UsageError: There is no capture, its manifest is damaged, or of another version.
    """

    def __init__(
        self, folder: str | Path, *, limits: Limits | None = None, renaming: Renaming | None = None
    ) -> None:
        self.folder = Path(folder)
        self.renaming = renaming or Renaming()
        self.limits = limits or Limits()
        self.manifest, problems = read_manifest(self.folder)
        self.problems: list[Problem] = list(problems)

    @property
    def facts(self) -> Facts:
        """What is known of the federation."""
        return self.manifest.facts

    def rounds(self) -> tuple[int, ...]:
        """Numbers of the rounds of which something was recorded, ascending."""
        return tuple(sorted(self._folders))

    def broadcast(self, round: int, client: str | None = None) -> dict[str, Tensor]:
        """What the server sent in a round: to that client, if it was sent something of its own.

        Raises:
            CaptureError: The broadcast is damaged.
            UsageError: None was recorded.
        """
        return self.broadcast_message(round, client).tensors()

    def broadcast_message(self, round: int, client: str | None = None) -> StoredMessage:
        """The header of a broadcast; raises as `broadcast`."""
        folder = self._folders.get(round, round_folder(self.folder, round))
        path = broadcast_file(folder, client)
        if path is None:
            raise UsageError(
                f"{self.folder}: no broadcast was recorded in round {round}, and an update means "
                "nothing without the model that it started from. Record it with "
                "record.broadcast(…), or import it with --broadcast FILE."
            )
        return open_message(path, "broadcast", round, self.limits)

    def messages(self, round: int) -> Iterator[StoredMessage]:
        """What clients sent in a round, by file name; what cannot be read becomes a problem."""
        for path in sorted(self._folder(round).glob("update-*.safetensors")):
            try:
                yield open_message(path, "update", round, self.limits)
            except CaptureError as error:
                self.report(error)

    def report(self, error: CaptureError) -> None:
        """Keep what is wrong with a file among `problems`, once."""
        try:
            name = str(Path(error.file).relative_to(self.folder))
        except ValueError:
            name = error.file
        problem = Problem(name, error.reason, error.key)
        if problem not in self.problems:
            self.problems.append(problem)

    @cached_property
    def _folders(self) -> dict[int, Path]:
        folders = {}
        for path in sorted(self.folder.iterdir()):
            match = _ROUND.fullmatch(path.name)
            if match and path.is_dir() and not path.is_symlink():
                folders[int(match[1])] = path
        return folders

    def _folder(self, round: int) -> Path:
        try:
            return self._folders[round]
        except KeyError:
            numbers = ", ".join(map(str, self.rounds()[:20])) or "none"
            raise UsageError(
                f"{self.folder}: nothing was recorded in round {round}. Rounds: {numbers}."
            ) from None


def read_manifest(folder: Path) -> tuple[Manifest, tuple[Problem, ...]]:
    """The manifest with all facts that were added, and what of them cannot be used.

    Raises:
        UsageError: There is no capture, its manifest is damaged, or of another version.
    """
    path = folder / "capture.json"
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}. Name the folder of a capture.")
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no capture.json, so it is no capture. Record one with "
            "fedaudit.recording(…), or make one of files with `fedaudit import`."
        )
    try:
        manifest = _manifest(path)
    except ValueError as error:
        raise UsageError(f"{path} cannot be used: {error}.") from error
    problems = []
    for more in sorted(folder.glob("facts-*.json")):
        try:
            facts, clashes = merge(manifest.facts, _manifest(more).facts)
        except ValueError as error:
            problems.append(Problem(more.name, str(error)))
            continue
        problems += [
            Problem(more.name, "it contradicts what was stated before, and is ignored", name)
            for name in clashes
        ]
        manifest = replace(manifest, facts=facts)
    return manifest, tuple(problems)


def _manifest(path: Path) -> Manifest:
    """One file; every fault is a `ValueError` with its reason."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is not a regular file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    try:
        content = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"it is no JSON ({str(error)[:80]})") from error
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise ValueError(
            f"it is of version {version}, and this fedaudit reads {VERSION}: install a newer one"
        )
    try:
        return manifests().validate_python(content)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
