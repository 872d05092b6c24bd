"""Runs a study in a run folder, from the beginning or from where an earlier run stopped."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedaudit.core.errors import RunFolderError
from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
from fedaudit.files import lock
from fedaudit.files.atomic import MARK, storage_errors, sweep
from fedaudit.study import hash_list
from fedaudit.study import manifest as manifests
from fedaudit.study.executor import Event, execute
from fedaudit.study.inventory import Inventory, check_jobs, set_aside
from fedaudit.study.jobs import Job, expand
from fedaudit.study.manifest import Manifest
from fedaudit.study.removal_record import read_removals
from fedaudit.study.run_folder import (
    CELLS,
    DAMAGED,
    EVIDENCE,
    MEASUREMENTS,
    MODELS,
    UNFINISHED,
    RunFolder,
)
from fedaudit.study.work import Work
from fedaudit.study.worker import Outcome


@dataclass(frozen=True)
class Opened:
    """A run folder that this process holds.

    Attributes:
        todo: Jobs that are not done, in order.
        inventory: The state of all jobs when it was opened; damaged ones are set aside by now.
    """

    folder: RunFolder
    manifest: Manifest
    jobs: tuple[Job, ...]
    todo: tuple[Job, ...]
    inventory: Inventory


@contextlib.contextmanager
def open_run(
    path: Path, study: Study, *, command: str = "", evidence: Evidence | None = None
) -> Iterator[Opened]:
    """Create a run folder, or go on with one; nobody else can run in it meanwhile.

    Args:
        path: The folder; parents are made.
        study: What to run.
        command: How to give the same command again, for the record.
        evidence: What may be kept of the originals; None goes on as begun, or begins "redacted".

    Raises:
        RunFolderError: The folder holds something else, or another process runs in it.
        StorageError: The folder cannot be written.
    """
    fresh = _is_fresh(path)
    with storage_errors(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.locked(path):
        if fresh and not (path / manifests.FILE).exists():
            with storage_errors(path):
                path.chmod(0o700)
            manifest = manifests.new(study, command, evidence or "redacted")
            manifests.write(path, manifest)
        else:
            manifest = manifests.read(path)
            manifests.check_same(path, manifest, study, evidence)
            if manifest.study != study:  # something that only the report shows has changed
                manifest = replace(manifest, study=study)
                manifests.write(path, manifest)
        sweep(path)
        _refuse_links(path)
        yield opened_for(RunFolder(path), manifest, expand(study))


def _refuse_links(path: Path) -> None:
    """What is written into a run folder is to lie in it."""
    for name in (CELLS, MODELS, MEASUREMENTS, EVIDENCE, DAMAGED, UNFINISHED):
        if (path / name).is_symlink():
            raise RunFolderError(
                f"{str(path / name)!r} is a link, and a run would write where it leads. Delete it, "
                "or choose another --output."
            )


def opened_for(folder: RunFolder, manifest: Manifest, jobs: Sequence[Job]) -> Opened:
    """What there is to do of `jobs` in a folder that this process holds; damaged ones set aside."""
    inventory = check_jobs(folder, jobs)
    set_aside(folder, [job for job in jobs if job.key in inventory.damaged])
    done = set(inventory.done)
    todo = tuple(job for job in jobs if job.key not in done)
    return Opened(folder, manifest, tuple(jobs), todo, inventory)


def run(
    opened: Opened,
    *,
    workers: int | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    work: Callable[[Any], None] | None = None,
    device: str = "cpu",
    limit: float | None = None,
) -> tuple[Outcome, ...]:
    """Do what is not done yet; failures are logged in the folder, and the others go on.

    Args:
        opened: From `open_run`.
        workers: Processes; as many as CPU cores by default.
        on_event: Called in this process as jobs start and finish.
        work: Does one job; the audit's by default. It must be picklable.
        device: Where the attacks compute; a torch device.
        limit: Seconds that a job may take; None for no limit.

    Raises:
        RunFolderError: There is something to do in a folder whose evidence was removed.
        StorageError: The disk refused; what was finished is kept.
        KeyboardInterrupt: The user interrupted; what was finished is kept.
    """
    folder = opened.folder
    if not opened.todo:
        hash_list.record(folder.path, {manifests.FILE})
        return ()
    if removals := read_removals(folder.path):
        raise RunFolderError(
            f"nothing is added to {str(folder.path)!r} any more: {removals[-1].sentence}. Choose "
            "another folder with --output."
        )
    work = work or Work(opened.manifest.study, folder, opened.manifest.evidence, device)
    started = time.monotonic()

    kinds, renewed = {job.key: job.kind for job in opened.todo}, {manifests.FILE}

    def note(event: Event) -> None:
        if event.outcome and event.outcome.status == "failed":
            folder.log(event="failed", key=event.key, message=event.outcome.message)
        elif event.outcome:
            files = folder.files(kinds[event.key], event.key)
            renewed.update(file.relative_to(folder.path).as_posix() for file in files)
        on_event(event)

    try:
        outcomes = execute(opened.todo, work, workers=workers, limit=limit, on_event=note)
    finally:
        with contextlib.suppress(Exception):  # a full disk must not hide why the run ends
            sweep(folder.path)
            folder.log(event="session", seconds=round(time.monotonic() - started, 3))
            hash_list.record(folder.path, renewed)
    return outcomes


def open_report(path: Path) -> tuple[RunFolder, Manifest, Inventory]:
    """A run folder to read, finished or not; nothing that it names is looked up or imported.

    Raises:
        RunFolderError: Not a run folder, of another format, or damaged.
    """
    manifest = manifests.read(path)
    folder = RunFolder(path)
    return folder, manifest, check_jobs(folder, manifest.jobs)


def preview(path: Path, study: Study, evidence: Evidence | None = None) -> Inventory | None:
    """What `open_run` would find; None where it would begin. Nothing is changed.

    Raises:
        RunFolderError: The folder holds something else.
    """
    if _is_fresh(path):
        return None
    manifests.check_same(path, manifests.read(path), study, evidence)
    return check_jobs(RunFolder(path), expand(study))


def failures(outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """Messages of the jobs that did not get done, by key."""
    return {o.key: o.message for o in outcomes if o.status != "done"}


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
    if foreign := [name for name in inside if name not in lock.FILES and not name.startswith(MARK)]:
        raise RunFolderError(
            f"{str(path)!r} holds files that are not a run's ({foreign[0]!r}). Choose an empty or "
            "new folder with --output."
        )
    return True
