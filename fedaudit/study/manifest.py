"""`study.json`: what a run folder holds, so that a run goes on only with what it began with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fedaudit.core.errors import ConfigError, FedauditError, RunFolderError
from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
from fedaudit.core.version import VERSION
from fedaudit.files.atomic import write_atomically
from fedaudit.study.study_file import deciding, digest, study_from_mapping, study_to_mapping

FORMAT = 2
"""Raised whenever what lies in a run folder changes its meaning."""

FILE = "study.json"


@dataclass(frozen=True)
class Manifest:
    """What `study.json` says.

    Attributes:
        fedaudit: Version that computes the cells.
        digest: Of all that decides the cells.
        command: As given when the run began.
        started: ISO time when the run began, UTC.
        evidence: What the run may keep of the originals.
    """

    study: Study
    fedaudit: str
    digest: str
    command: str
    started: str
    evidence: Evidence


def new(study: Study, command: str, evidence: Evidence) -> Manifest:
    """The manifest of a run that begins now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(study, VERSION, digest(study), command, now, evidence)


def write(folder: Path, manifest: Manifest) -> None:
    """Write `study.json`.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    content = {
        "format": FORMAT,
        "fedaudit": manifest.fedaudit,
        "digest": manifest.digest,
        "command": manifest.command,
        "started": manifest.started,
        "evidence": manifest.evidence,
        "study": study_to_mapping(manifest.study),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
    write_atomically(folder / FILE, text.encode())


def read(folder: Path) -> Manifest:
    """Read `study.json`.

    Raises:
        RunFolderError: Not a run folder, of another format, or damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(
            f"{str(folder)!r} is not a run folder: it has no {FILE}. "
            f"`fedaudit run STUDY.toml --output {folder}` makes one."
        ) from error
    except OSError as error:
        raise RunFolderError(f"cannot read {str(path)!r}: {error.strerror}.") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, Mapping):
        raise _damaged(path, "it is not a table")
    if content.get("format") != FORMAT:
        raise RunFolderError(
            f"{str(folder)!r} has run-folder format {content.get('format')!r}, and fedaudit "
            f"{VERSION} reads format {FORMAT}. Use fedaudit "
            f"{content.get('fedaudit', 'of the version that wrote it')!s}, or run the study again "
            "with another --output."
        )
    return _parse(content, path)


class _Stored(BaseModel):
    """What lies in the file, apart from its format."""

    model_config = ConfigDict(strict=True)
    study: dict[str, Any]
    fedaudit: str
    digest: str
    command: str
    started: str
    evidence: Evidence


def _parse(content: Mapping[str, Any], path: Path) -> Manifest:
    try:
        stored = _Stored.model_validate(content)
        study = study_from_mapping(stored.study, file=str(path))
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))} {first['input']!r}: {first['msg']}"
        raise _damaged(path, what) from error
    except FedauditError as error:
        raise _damaged(path, str(error)) from error
    if stored.digest != digest(study):
        raise _damaged(path, "its digest does not fit its study; was it edited?")
    return Manifest(**dict(stored) | {"study": study})


def check_same(folder: Path, manifest: Manifest, study: Study, evidence: Evidence | None) -> None:
    """Refuse to go on with a run that began with something else.

    Raises:
        RunFolderError: Another study (the first difference is named) or version.
        ConfigError: Another evidence level.
    """
    if manifest.digest != digest(study):
        there, here = (deciding(study_to_mapping(s)) for s in (manifest.study, study))
        raise RunFolderError(
            f"{str(folder)!r} holds another study: {_difference(there, here)}. Choose another "
            "folder with --output, or give the study that this folder began with."
        )
    if manifest.fedaudit != VERSION:
        raise RunFolderError(
            f"{str(folder)!r} was begun by fedaudit {manifest.fedaudit}, and this is "
            f"{VERSION}: cells of both would not be comparable. `fedaudit report "
            f"{folder}` still works; to run, choose another --output or use fedaudit "
            f"{manifest.fedaudit}."
        )
    if evidence is not None and evidence != manifest.evidence:
        raise ConfigError(
            f"{str(folder)!r} was begun with --evidence {manifest.evidence}, and what is finished "
            f"cannot be changed to {evidence}. Go on with --evidence {manifest.evidence}, or "
            "choose another --output. A report that shows less: `fedaudit report --evidence`."
        )


def _difference(there: object, here: object, path: str = "") -> str:
    """The first place where two plain structures differ, in words."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            inside = f"{path}.{key}" if path else str(key)
            if key not in there or key not in here:
                return f"{inside} is only in {'this study' if key in here else 'the folder'}"
            if there[key] != here[key]:
                return _difference(there[key], here[key], inside)
    if isinstance(there, list) and isinstance(here, list):
        for index, (one, other) in enumerate(zip(there, here, strict=False)):
            if one != other:
                return _difference(one, other, f"{path}[{index}]")
        return f"{path} has {len(there)} entries there and {len(here)} here"
    return f"{path} is {there!r} there and {here!r} here"


def _damaged(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{str(path)!r} is damaged: {what}. Restore it from a backup, or run the study again with "
        "another --output."
    )
