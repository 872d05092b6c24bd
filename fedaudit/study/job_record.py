"""The record of a finished job: what it measured, what computed it, and hashes that are checked.

Whoever made the folder may have written anything into it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaudit.core.errors import RunFolderError
from fedaudit.core.version import VERSION
from fedaudit.data.provenance import commit
from fedaudit.files import regular_file
from fedaudit.study.stored_values import check_plain


@dataclass(frozen=True)
class Record:
    """What lies in the folder of a job that is done.

    Attributes:
        body: What it measured.
        origin: The code that computed it: a commit, or else a version; "" if unknown.
        sha256: Of the file.
        tensors: SHA-256 of the file of its tensors.
    """

    body: Any
    origin: str
    sha256: str
    tensors: str


def pack_record(key: str, body: object, sha256: str, *, is_sealed: bool) -> bytes:
    """A record as its file holds it.

    Args:
        key: The job's key.
        body: What it measured, as plain data.
        sha256: Of the file of its tensors.
        is_sealed: Whether that file is encrypted.
    """
    origin = {"fedaudit": VERSION, "git_commit": commit()}
    record = {"key": key, "sha256": sha256, "origin": origin, "body": body}
    record |= {"sealed": True} if is_sealed else {}
    record["record"] = hash_of_record(json.loads(json.dumps(record)))  # as it will be read
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def read_record(
    files: tuple[Path, Path, Path], kind: str, key: str, is_removed: Callable[[str, str], bool]
) -> Record:
    """A record that is as it was written, and whose tensors are.

    Args:
        files: The record, its tensors, and those sealed.
        kind: Folder of the run that holds it.
        key: The job's key.
        is_removed: Whether a file of this name and SHA-256 was taken out of the run on purpose.

    Raises:
        RunFolderError: It is missing or damaged.
    """
    record_path, tensors_path, sealed_path = files
    try:
        content = regular_file.read_bytes(record_path)
        record = json.loads(content)
        inside, sha256, body = record["key"], record["sha256"], record["body"]
        whole = record.get("record") == hash_of_record(record)
        tensors_path = sealed_path if record.get("sealed") is True else tensors_path
        check_plain(body)
    except FileNotFoundError as error:
        raise RunFolderError(
            f"{kind}/{key} is missing: it was not computed yet, or failed. "
            "`fedaudit run` with the same study computes what is missing."
        ) from error
    except RunFolderError as error:
        raise damage_of(kind, key, "its record is not what was written") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damage_of(kind, key, "its record is not what was written") from error
    if inside != key:
        raise damage_of(kind, key, f"it holds {str(inside)[:100]!r}")
    if not whole:
        raise damage_of(kind, key, "its record was edited, its hash does not fit")
    try:
        digest = regular_file.sha256(tensors_path)
    except FileNotFoundError as error:
        if is_removed(f"{kind}/{tensors_path.name}", sha256):
            return Record(body, _origin(record), sha256_of(content), sha256)
        raise damage_of(kind, key, "its tensors are missing") from error
    except RunFolderError as error:
        raise damage_of(kind, key, "its tensors are not what was written") from error
    if digest != sha256:
        raise damage_of(kind, key, "its tensors are not what was written")
    return Record(body, _origin(record), sha256_of(content), sha256)


def sha256_of(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def hash_of_record(record: Mapping[str, Any]) -> str:
    """Hash of everything in a record but the hash itself."""
    rest = {name: value for name, value in record.items() if name != "record"}
    return sha256_of(json.dumps(rest, sort_keys=True).encode())


def _origin(record: Mapping[str, Any]) -> str:
    try:
        origin = record["origin"]
        return str(origin["git_commit"] or origin["fedaudit"])[:64]
    except (KeyError, TypeError):
        return ""


def damage_of(kind: str, key: str, what: str) -> RunFolderError:
    """The error of a job whose record or tensors are not as they were written."""
    return RunFolderError(
        f"{kind}/{key} is damaged: {what}. `fedaudit run` with the same study sets it aside and "
        "computes it again."
    )
