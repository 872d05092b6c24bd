"""Read the facts of a capture: `capture.json`, and what was added later."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from fedaudit.captures.format.capture_facts import (
    VERSION,
    Manifest,
    first_problem,
    manifests,
    merge,
)
from fedaudit.core.errors import UsageError

LARGEST = 8_000_000
"""Bytes of a manifest."""


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
        manifest = _read(path)
    except ValueError as error:
        raise UsageError(f"{path} cannot be used: {error}.") from error
    problems = []
    for more in sorted(folder.glob("facts-*.json")):
        try:
            facts, clashes = merge(manifest.facts, _read(more).facts)
        except ValueError as error:
            problems.append(Problem(more.name, str(error)))
            continue
        problems += [
            Problem(more.name, "it contradicts what was stated before, and is ignored", name)
            for name in clashes
        ]
        manifest = replace(manifest, facts=facts)
    return manifest, tuple(problems)


def _read(path: Path) -> Manifest:
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
