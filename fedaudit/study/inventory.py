"""Which jobs of a study are done, missing or damaged in a run folder."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.files.atomic import storage_errors
from fedaudit.study import hash_list
from fedaudit.study.run_folder import CELLS, DAMAGED, MEASUREMENTS, MODELS, RunFolder
from fedaudit.study.shared_jobs import Recorded, failures


@dataclass(frozen=True)
class Inventory:
    """The state of every job.

    Attributes:
        done: Keys of the finished jobs.
        missing: Keys of the jobs that left nothing.
        damaged: Keys of the jobs whose files are not what was written, with the reason.
        failed: Keys of missing jobs that were tried and failed, with the message.
    """

    done: tuple[str, ...]
    missing: tuple[str, ...]
    damaged: Mapping[str, str]
    failed: Mapping[str, str]


def check_jobs(folder: RunFolder, jobs: Iterable[Recorded]) -> Inventory:
    """Look at the files of every job; nothing is changed."""
    done, missing, damaged = [], [], {}
    listed = hash_list.read(folder.path)
    for job in jobs:
        if not _files(folder, job)[0].exists():
            missing.append(job.key)
            continue
        try:
            _READERS[job.kind](folder, job.key)
        except RunFolderError as error:
            damaged[job.key] = str(error)
        else:
            if hash_list.is_altered(folder.path, f"{job.kind}/{job.key}.json", listed):
                damaged[job.key] = (
                    f"{job.kind}/{job.key} was altered since it was computed: its hash is not the "
                    f"one in {hash_list.FILE}. `fedaudit run` with the same study sets it aside "
                    "and computes it again."
                )
            else:
                done.append(job.key)
    failed = failures(folder.path, missing)
    return Inventory(tuple(done), tuple(missing), damaged, failed)


def set_aside(folder: RunFolder, jobs: Iterable[Recorded]) -> None:
    """Move the files of damaged jobs to `damaged/`, where they can be looked at.

    Raises:
        StorageError: The disk may not be written.
    """
    jobs = tuple(jobs)
    aside = folder.path / DAMAGED
    files = [path for job in jobs for path in _files(folder, job)]
    hash_list.forget(folder.path, {path.relative_to(folder.path).as_posix() for path in files})
    with storage_errors(aside):
        for path in files:
            aside.mkdir(mode=0o700, exist_ok=True)
            if path.exists():
                os.replace(path, aside / path.name)


def _files(folder: RunFolder, job: Recorded) -> tuple[Path, ...]:
    return folder.files(job.kind, job.key)


_READERS: Mapping[str, Callable[[RunFolder, str], object]] = {
    CELLS: RunFolder.trial,
    MODELS: RunFolder.measured,
    MEASUREMENTS: RunFolder.measurement,
}
"""How the record of each kind of job is read; it raises `RunFolderError` where it is damaged."""
