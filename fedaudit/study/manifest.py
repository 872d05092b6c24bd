"""`study.json`: what a run folder holds, so that a run goes on only with what it began with.

It lists the jobs and says what kind of attack each attack is, because whoever reads the folder must
not look up the names in it: a name may be code, `package.module:object`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fedaudit.core.errors import ConfigError, FedauditError, RunFolderError
from fedaudit.core.measures import Evidence
from fedaudit.core.protocols import AttackCategory, category_of
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Study
from fedaudit.core.version import VERSION
from fedaudit.files import regular_file
from fedaudit.files.atomic import write_atomically
from fedaudit.study.jobs import expand
from fedaudit.study.run_folder import CELLS, MEASUREMENTS, MODELS
from fedaudit.study.stored_values import check_plain
from fedaudit.study.study_file import (
    canonical,
    deciding,
    digest,
    study_from_mapping,
    study_to_mapping,
)

FORMAT = 3
"""Raised whenever what lies in a run folder changes its meaning."""

FILE = "study.json"
WHY_FILE = "question.json"
"""What `fedaudit why` wrote in its place in format 1."""


@dataclass(frozen=True)
class ListedJob:
    """A job as the folder lists it: enough to find its record.

    Attributes:
        kind: Folder of its record.
        key: Name of its record.
    """

    kind: str
    key: str


@dataclass(frozen=True)
class Manifest:
    """What `study.json` says.

    Attributes:
        fedaudit: Version that computes the cells.
        digest: Of all that decides the cells.
        command: As given when the run began.
        started: ISO time when the run began, UTC.
        evidence: What the run may keep of the originals.
        jobs: All jobs of the study, in order.
        categories: The class of each attack, by its label.
    """

    study: Study
    fedaudit: str
    digest: str
    command: str
    started: str
    evidence: Evidence
    jobs: tuple[ListedJob, ...]
    categories: Mapping[str, AttackCategory]


def new(study: Study, command: str, evidence: Evidence) -> Manifest:
    """The manifest of a run that begins now; the study's plugins are looked up."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    jobs = tuple(ListedJob(job.kind, job.key) for job in expand(study))
    return Manifest(
        study, VERSION, digest(study), command, now, evidence, jobs, categories_of(study)
    )


def categories_of(study: Study) -> dict[str, AttackCategory]:
    """What each attack says of its class, by its label; the attacks are created."""
    attacks = {attack.label: attack for scene in study.scenarios for attack in scene.attacks}
    return {label: _category(attack) for label, attack in attacks.items()}


def _category(attack: Choice) -> AttackCategory:
    """What the attack says of itself; "other" for one that is no longer installed."""
    try:
        return category_of(create("attacks", attack.name, attack.settings))
    except FedauditError:
        return AttackCategory.OTHER


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
        "jobs": [f"{job.kind}/{job.key}" for job in manifest.jobs],
        "categories": manifest.categories,
    }
    content["sha256"] = _sha256(content)
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
    write_atomically(folder / FILE, text.encode())


def _sha256(content: Mapping[str, Any]) -> str:
    """Of everything in the file but the hash itself."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(canonical(rest).encode("utf-8", "surrogatepass")).hexdigest()


def read(folder: Path) -> Manifest:
    """Read `study.json`; nothing that it names is looked up or imported.

    Raises:
        RunFolderError: Not a run folder, of another format, or damaged.
    """
    path = folder / FILE
    refuse_older(folder)
    try:
        content = regular_file.read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(
            f"{str(folder)!r} is not a run folder: it has no {FILE}. "
            f"`fedaudit run STUDY.toml --output {folder}` makes one."
        ) from error
    if not isinstance(content, Mapping):
        raise _damage(path, "it is not a table")
    if content.get("format") != FORMAT:
        raise _other_format(folder, content.get("format"), content.get("fedaudit"))
    return _parse(content, path)


_Listed = Annotated[
    str,
    StringConstraints(
        pattern=rf"^({CELLS}|{MODELS}|{MEASUREMENTS})/[^./\\\x00][^/\\\x00]{{0,230}}$"
    ),
]
"""Its file lies in the folder, whatever its name."""


def refuse_older(folder: Path) -> None:
    """Refuse what `fedaudit why` wrote in a format without `study.json`.

    Raises:
        RunFolderError: Names the version that wrote it.
    """
    try:
        question = regular_file.read_json(folder / WHY_FILE)
    except (OSError, RunFolderError):
        return
    if isinstance(question, Mapping) and not (folder / FILE).exists():
        raise _other_format(folder, 1, question.get("version"))


def _other_format(folder: Path, number: object, version: object) -> RunFolderError:
    earlier = "an earlier build of " if version == VERSION else ""
    has_version = isinstance(version, str) and version
    writer = f"{earlier}fedaudit {version}"[:80] if has_version else "the version that wrote it"
    form = number if isinstance(number, int) else "of its own"
    return RunFolderError(
        f"{str(folder)!r} has run-folder format {form}, and fedaudit {VERSION} reads format "
        f"{FORMAT}. Use {writer}, or run the study again with another --output."
    )


def _other_build(path: Path, version: str) -> RunFolderError:
    return RunFolderError(
        f"{str(path.parent)!r} was written by another build of fedaudit ({version[:40]}), whose "
        "studies mean something else here. Use that build, or run the study again with another "
        "--output."
    )


class _Stored(BaseModel):
    """What lies in the file, apart from its format."""

    model_config = ConfigDict(strict=True)
    study: dict[str, Any]
    fedaudit: str
    digest: str
    command: str
    started: str
    evidence: Evidence
    jobs: list[_Listed]
    categories: dict[str, Annotated[AttackCategory, Field(strict=False)]]


def _parse(content: Mapping[str, Any], path: Path) -> Manifest:
    try:
        record = _Stored.model_validate(content)
        check_plain(content)
        study = study_from_mapping(record.study, file=str(path))
        if content.get("sha256") != _sha256(content):
            raise ValueError("its hash does not fit what it says, as if it was edited")
        if record.digest != digest(study):
            raise _other_build(path, record.fedaudit)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100]
        what = f"{where} {repr(first['input'])[:100]}: {first['msg'][:200]}"
        raise _damage(path, what) from error
    except RunFolderError:
        raise
    except FedauditError as error:
        raise _damage(path, str(error)[:400]) from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise _damage(path, str(error)[:200]) from error
    jobs = tuple(ListedJob(*line.split("/")) for line in record.jobs)
    return Manifest(**dict(record) | {"study": study, "jobs": jobs})


def check_same(folder: Path, manifest: Manifest, study: Study, evidence: Evidence | None) -> None:
    """Refuse to go on with a run that began with something else.

    Raises:
        RunFolderError: Another study (the first difference is named) or version.
        ConfigError: Another evidence level, or other keys to encrypt it for.
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
    if study.encrypt_evidence and study.encrypt_evidence != manifest.study.encrypt_evidence:
        began = ", ".join(manifest.study.encrypt_evidence) or "everybody: it is not encrypted"
        raise ConfigError(
            f"{str(folder)!r} was begun with evidence for {began}, and what is finished cannot be "
            "changed. Go on without --encrypt-evidence, or choose another --output."
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


def _damage(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{str(path)!r} is damaged: {what}. Restore it from a backup, or run the study again with "
        "another --output."
    )
