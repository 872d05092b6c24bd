"""Which jobs of a study are done, missing or damaged in a run folder."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.core.trial import Trial
from fedaudit.files.atomic import storage_errors
from fedaudit.study import hash_list
from fedaudit.study.job_record import Record
from fedaudit.study.run_folder import CELLS, DAMAGED, MODELS, RunFolder
from fedaudit.study.shared_jobs import Recorded, failures


@dataclass(frozen=True)
class Inventory:
    """The state of every job.

    Attributes:
        done: Keys of the finished jobs.
        missing: Keys of the jobs that left nothing.
        damaged: Keys of the jobs whose files are not what was written, with the reason.
        failed: Keys of missing jobs that were tried and failed, with the message.
        trials: The finished cells, where they were to be kept.
        origins: How many of those which code computed.
    """

    done: tuple[str, ...]
    missing: tuple[str, ...]
    damaged: Mapping[str, str]
    failed: Mapping[str, str]
    trials: tuple[Trial, ...] = ()
    origins: Mapping[str, int] = field(default_factory=dict)


def check_jobs(
    folder: RunFolder, jobs: Iterable[Recorded], *, keep_trials: bool = False
) -> Inventory:
    """Look at the files of every job; nothing is changed."""
    complete, missing, damage = [], [], {}
    trials: list[Trial] = []
    origins: Counter[str] = Counter()
    digests = hash_list.read(folder.path)
    for job in jobs:
        if not _files(folder, job)[0].exists():
            missing.append(job.key)
            continue
        try:
            trial, record = _read(folder, job)
        except RunFolderError as error:
            damage[job.key] = str(error)
        else:
            name = f"{job.kind}/{job.key}.json"
            if digests.get(name, record.sha256) != record.sha256:
                damage[job.key] = (
                    f"{job.kind}/{job.key} was altered since it was computed: its hash is not the "
                    f"one in {hash_list.FILE}. `fedaudit run` with the same study sets it aside "
                    "and computes it again."
                )
            else:
                complete.append(job.key)
                if keep_trials and trial:
                    trials.append(trial)
                    origins[record.origin] += 1
    errors = failures(folder.path, missing)
    return Inventory(tuple(complete), tuple(missing), damage, errors, tuple(trials), origins)


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


def _read(folder: RunFolder, job: Recorded) -> tuple[Trial | None, Record]:
    """The record of a job, and the trial in it, if it is a cell.

    Raises:
        RunFolderError: It is damaged.
    """
    if job.kind == CELLS:
        return folder.stored_trial(job.key)
    if job.kind == MODELS:
        folder.measured(job.key)
    return None, folder.record(job.kind, job.key)
