"""Runs a study in a run folder, from the beginning or from where an earlier run stopped."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedaudit.core.errors import RunFolderError
from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
from fedaudit.files import lease, sealed
from fedaudit.files.atomic import MARK, storage_errors, sweep
from fedaudit.study import hash_list
from fedaudit.study import manifest as manifests
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.executors.pool import Executor
from fedaudit.study.inventory import Inventory, check_jobs, set_aside
from fedaudit.study.jobs import Job, expand
from fedaudit.study.manifest import Manifest
from fedaudit.study.place_of_run import check_place, make_folder
from fedaudit.study.removal_record import read_removals
from fedaudit.study.run_folder import (
    CELLS,
    DAMAGED,
    EVIDENCE,
    FAILED,
    MEASUREMENTS,
    MODELS,
    UNFINISHED,
    RunFolder,
)
from fedaudit.study.scheduler import Event, execute, unable
from fedaudit.study.shared_jobs import SharedJobs, forget_failures
from fedaudit.study.work import Work
from fedaudit.study.worker import Outcome


@dataclass(frozen=True)
class Opened:
    """A run folder in which this process works, maybe beside others.

    Attributes:
        todo: Jobs that are not done and have not failed, in order.
        inventory: The state of all jobs when it was opened; damaged ones are set aside by now.
        failed: Why jobs cannot be done that are not to do: they failed before, or need one that
            did; by key.
    """

    folder: RunFolder
    manifest: Manifest
    leases: lease.Leases
    jobs: tuple[Job, ...]
    todo: tuple[Job, ...]
    inventory: Inventory
    failed: Mapping[str, str]


@contextlib.contextmanager
def open_run(
    path: Path,
    study: Study,
    *,
    command: str = "",
    evidence: Evidence | None = None,
    retry_failed: bool = False,
) -> Iterator[Opened]:
    """Create a run folder, or go on with one; others may run the same study in it meanwhile.

    Args:
        path: The folder; parents are made.
        study: What to run.
        command: How to give the same command again, for the record.
        evidence: What may be kept of the originals; None goes on as begun, or begins "redacted".
        retry_failed: Try again what failed before.

    Raises:
        ConfigError: A key to encrypt evidence for is none, or not the one that the run began with.
        RunFolderError: The folder holds something else.
        UsageError: It cannot be made there.
        StorageError: The folder cannot be written.
    """
    sealed.check_recipients(study.encrypt_evidence)
    fresh = _is_fresh(path)
    make_folder(path)
    with lease.holding(path) as leases:
        with leases.exclusive(lease.UPKEEP):
            if fresh and not (path / manifests.FILE).exists():
                with storage_errors(path):
                    path.chmod(0o700)
                manifest = manifests.new(study, command, evidence or "redacted")
                manifests.write(path, manifest)
            else:
                manifest = manifests.read(path)
                manifests.check_same(path, manifest, study, evidence)
                study = replace(study, encrypt_evidence=manifest.study.encrypt_evidence)
                if manifest.study != study:  # something that only the report shows has changed
                    manifest = replace(manifest, study=study)
                    manifests.write(path, manifest)
            _sweep_alone(path, leases)
            _refuse_links(path)
            jobs = expand(study)
            folder = RunFolder(path, manifest.study.encrypt_evidence)
            workspace = _open(folder, manifest, leases, jobs, retry_failed=retry_failed)
        yield workspace


def _sweep_alone(path: Path, leases: lease.Leases) -> None:
    """Delete what crashes left, unless others are writing."""
    if not leases.others():
        sweep(path)


def _refuse_links(path: Path) -> None:
    """What is written into a run folder is to lie in it."""
    for name in (CELLS, MODELS, MEASUREMENTS, EVIDENCE, FAILED, DAMAGED, UNFINISHED):
        if (path / name).is_symlink():
            raise RunFolderError(
                f"{str(path / name)!r} is a link, and a run would write where it leads. Delete it, "
                "or choose another --output."
            )


def opened_for(opened: Opened, jobs: Sequence[Job]) -> Opened:
    """The same folder with other jobs; damaged ones are set aside, failed ones tried again."""
    with opened.leases.exclusive(lease.UPKEEP):
        return _open(opened.folder, opened.manifest, opened.leases, jobs, retry_failed=True)


def _open(
    folder: RunFolder,
    manifest: Manifest,
    leases: lease.Leases,
    jobs: Sequence[Job],
    *,
    retry_failed: bool,
) -> Opened:
    inventory = check_jobs(folder, jobs)
    set_aside(folder, [job for job in jobs if job.key in inventory.damaged])
    failures_by_key = {} if retry_failed else dict(inventory.failed)
    if retry_failed:
        forget_failures(folder.path, inventory.failed)
    for job in jobs:  # in the order in which they need each other
        if need := next((need for need in job.needs if need in failures_by_key), None):
            failures_by_key[job.key] = f"{need}, which it needs, failed: {failures_by_key[need]}"
    over = {*inventory.done, *failures_by_key}
    todo = tuple(job for job in jobs if job.key not in over)
    return Opened(folder, manifest, leases, tuple(jobs), todo, inventory, failures_by_key)


def run(
    opened: Opened,
    *,
    executor: Executor | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    work: Callable[[Any], None] | None = None,
    device: str = "cpu",
    budget: float | None = None,
) -> tuple[Outcome, ...]:
    """Do what is not done yet; failures are kept in the folder, and the others go on.

    Args:
        opened: From `open_run`.
        executor: Where; processes of this machine by default.
        on_event: Called in this process as jobs start and finish.
        work: Does one job; the audit's by default. It must be picklable.
        device: Where the attacks compute; a torch device.
        budget: Seconds after which no further job begins; None for no limit.

    Raises:
        RunFolderError: There is something to do in a folder whose evidence was removed.
        StorageError: The disk refused; what was finished is kept.
        KeyboardInterrupt: The user interrupted; what was finished is kept.
    """
    folder = opened.folder
    if not opened.todo:
        record_hashes(opened, {manifests.FILE})
        return ()
    if removals := read_removals(folder.path):
        raise RunFolderError(
            f"nothing is added to {str(folder.path)!r} any more: {removals[-1].sentence}. Choose "
            "another folder with --output."
        )
    work = work or Work(opened.manifest.study, folder, opened.manifest.evidence, device)
    start = time.monotonic()

    kinds, new_files = {job.key: job.kind for job in opened.todo}, {manifests.FILE}

    def note(event: Event) -> None:
        if event.outcome and event.outcome.status == "done" and event.outcome.seconds is not None:
            files = folder.files(kinds[event.key], event.key)
            new_files.update(file.relative_to(folder.path).as_posix() for file in files)
        on_event(event)

    try:
        return execute(
            opened.todo,
            work,
            executor or LocalProcesses(),
            shared=SharedJobs(folder.path, opened.leases, kinds),
            budget=budget,
            on_event=note,
        )
    finally:
        with contextlib.suppress(Exception):  # a full disk must not hide why the run ends
            _sweep_alone(folder.path, opened.leases)
            folder.log(event="session", seconds=round(time.monotonic() - start, 3))
            record_hashes(opened, new_files)


def record_hashes(opened: Opened, renewed: Collection[str]) -> None:
    """List what is new in the folder in `SHA256SUMS`; as `hash_list.record`."""
    with opened.leases.exclusive(lease.UPKEEP):
        hash_list.record(opened.folder.path, renewed)


def open_report(path: Path) -> tuple[RunFolder, Manifest, Inventory]:
    """A run folder to read, finished or not; nothing that it names is looked up or imported.

    Raises:
        RunFolderError: Not a run folder, of another format, or damaged.
    """
    manifest = manifests.read(path)
    folder = RunFolder(path, manifest.study.encrypt_evidence)
    return folder, manifest, check_jobs(folder, manifest.jobs, keep_trials=True)


def preview(path: Path, study: Study, evidence: Evidence | None = None) -> Inventory | None:
    """What `open_run` would find; None where it would begin. Nothing is changed.

    Raises:
        RunFolderError: The folder holds something else.
        UsageError: It could not be made there.
    """
    if _is_fresh(path):
        check_place(path)
        return None
    manifests.check_same(path, manifests.read(path), study, evidence)
    return check_jobs(RunFolder(path), expand(study))


def failures(opened: Opened, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """Messages of the jobs that could not be done, now or before, by key."""
    return {**opened.failed, **unable(outcomes)}


def _is_fresh(path: Path) -> bool:
    """Whether a run may begin there: nothing lies in it but what a run that died early leaves."""
    try:
        inside = [entry.name for entry in path.iterdir()]
    except FileNotFoundError:
        return True
    except NotADirectoryError as error:
        raise RunFolderError(
            f"{str(path)!r} is a file, and a run needs a folder. Choose another --output."
        ) from error
    except PermissionError as error:
        raise RunFolderError(
            f"cannot look into {str(path)!r}: permission is denied. Choose another --output."
        ) from error
    if manifests.FILE in inside:
        return False
    manifests.refuse_older(path)
    if foreign := [name for name in inside if name != lease.FOLDER and not name.startswith(MARK)]:
        raise RunFolderError(
            f"{str(path)!r} holds files that are not a run's ({foreign[0]!r}). Choose an empty or "
            "new folder with --output."
        )
    return True
