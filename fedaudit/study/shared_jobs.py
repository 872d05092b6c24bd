"""The jobs of a run folder in which several processes may work: whose a job is, what became of it.

A job is done when its record lies in the folder, and has failed when its failure does; while
neither does, whoever holds its lease does it.

    RUN/failed/<key>.json     why a job failed; `fedaudit run --retry-failed` deletes it
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedaudit.core.errors import RunFolderError
from fedaudit.files import regular_file
from fedaudit.files.atomic import storage_errors, write_atomically
from fedaudit.files.lease import Leases
from fedaudit.study.executors.pool import Task
from fedaudit.study.run_folder import FAILED
from fedaudit.study.worker import Outcome


class Recorded(Protocol):
    """What must be known of a job to find what it left."""

    @property
    def key(self) -> str:
        """Name of its record."""
        ...

    @property
    def kind(self) -> str:
        """Folder of its record."""
        ...


@dataclass(frozen=True)
class SharedJobs:
    """The jobs of a folder, as one of those sees them who work in it.

    Args:
        folder: The run folder.
        leases: This process's.
        kinds: The folder of each job's record, by its key.
    """

    folder: Path
    leases: Leases
    kinds: Mapping[str, str] = field(repr=False)

    def take(self, job: Task) -> Outcome | bool:
        """Take a job: False where another process holds it, its outcome where it is done."""
        if not self.leases.take(job.key):
            return False
        if outcome := self._outcome(job.key):  # between the last look and now
            self.leases.release(job.key)
            return outcome
        return True

    def ended(self, keys: Collection[str]) -> list[Outcome]:
        """Outcomes of those of the jobs that another process has ended."""
        there = {
            (kind, Path(name).stem)
            for kind in {*self.kinds.values(), FAILED}
            for name in _names(self.folder / kind)
            if name.endswith(".json")
        }
        near = (k for k in keys if (self.kinds[k], k) in there or (FAILED, k) in there)
        return [outcome for key in near if (outcome := self._outcome(key))]

    def keep(self, outcome: Outcome) -> None:
        """Keep how a job of this process ended, and give its lease back."""
        if outcome.status == "failed":
            record_failure(self.folder, outcome.key, outcome.message)
        self.leases.release(outcome.key)

    def _outcome(self, key: str) -> Outcome | None:
        if (self.folder / self.kinds[key] / f"{key}.json").exists():
            return Outcome(key, "done")
        message = _failure(self.folder / FAILED / f"{key}.json")
        return None if message is None else Outcome(key, "failed", message)


def record_failure(folder: Path, key: str, message: str) -> None:
    """Keep why a job failed, so that nobody tries it again unasked.

    Raises:
        StorageError: The folder cannot be written.
    """
    path = folder / FAILED / f"{key}.json"
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(path, json.dumps({"message": message}, ensure_ascii=False).encode())


def failures(folder: Path, keys: Collection[str]) -> dict[str, str]:
    """Why those of the jobs failed that did and are not done since."""
    there = {Path(name).stem for name in _names(folder / FAILED)}
    messages = {key: _failure(folder / FAILED / f"{key}.json") for key in keys if key in there}
    return {key: message for key, message in messages.items() if message is not None}


def forget_failures(folder: Path, keys: Collection[str]) -> None:
    """Have jobs that failed tried again."""
    with storage_errors(folder / FAILED):
        for key in failures(folder, keys):
            (folder / FAILED / f"{key}.json").unlink(missing_ok=True)


def _failure(path: Path) -> str | None:
    """The message of a failure; None where there is none."""
    try:
        return str(regular_file.read_json(path)["message"])
    except FileNotFoundError:
        return None
    except (RunFolderError, KeyError, TypeError):
        return f"its failure is recorded in {FAILED}/, and cannot be read"


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
