"""Mending a run folder that was harmed, and joining folders in which parts of a study were run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedaudit.core.errors import RunFolderError
from fedaudit.files import lease, regular_file
from fedaudit.files.atomic import storage_errors, sweep, write_atomically
from fedaudit.study import hash_list
from fedaudit.study import manifest as manifests
from fedaudit.study.inventory import check_jobs, set_aside
from fedaudit.study.removal_record import read_removals
from fedaudit.study.run_folder import CELLS, DAMAGED, EVIDENCE, FACTS, UNFINISHED, RunFolder
from fedaudit.study.shared_jobs import forget_failures


@dataclass(frozen=True)
class Repair:
    """Which jobs a repair found whole, damaged or missing.

    Attributes:
        done: How many jobs are done and whole.
        set_aside: Keys of the jobs whose files are not what was written.
        missing: How many jobs are to do, those set aside among them.
        relisted: Whether the list of hashes was lost, and made again of what is there.
    """

    done: int
    set_aside: tuple[str, ...]
    missing: int
    relisted: bool


def repair(path: Path) -> Repair:
    """Set aside what is damaged, delete what crashes left, and list the rest.

    Results are neither computed nor changed. A list of hashes that is there stays: what differs
    from it is set aside. Where it is lost it is made again of the cells, and vouches for them from
    now on only; the log says so.

    Raises:
        RunFolderError: Not a run folder, its manifest is damaged, or somebody works in it.
        StorageError: It may not be written.
    """
    manifest, folder = manifests.read(path), RunFolder(path)
    with lease.alone(path):
        sweep(path)
        has_new_list = _set_list_aside(path)
        inventory = check_jobs(folder, manifest.jobs)
        bad_jobs = set(inventory.damaged)
        set_aside(folder, [job for job in manifest.jobs if job.key in bad_jobs])
        forget_failures(path, inventory.done)
        with storage_errors(path):
            for key in inventory.done:
                _forget_unfinished(path, key)
        hash_list.record(path)
        folder.log(event="repair", set_aside=sorted(bad_jobs), relisted=has_new_list)
    missing = len(inventory.missing) + len(bad_jobs)
    return Repair(len(inventory.done), tuple(inventory.damaged), missing, has_new_list)


def _set_list_aside(path: Path) -> bool:
    """Move a list of hashes away that cannot be read; whether there is none then."""
    file = path / hash_list.FILE
    try:
        hash_list.read(path)
    except RunFolderError:
        with storage_errors(file):
            (path / DAMAGED).mkdir(mode=0o700, exist_ok=True)
            os.replace(file, path / DAMAGED / file.name)
    return not file.exists()


@dataclass(frozen=True)
class Merge:
    """How many jobs a merge copied, and which folders it left out.

    Attributes:
        copied: How many jobs came from other folders.
        unlike: Keys of jobs that two folders have with other results.
        missing: How many jobs no folder has.
    """

    copied: int
    unlike: tuple[str, ...]
    missing: int


def merge(into: Path, others: Sequence[Path]) -> Merge:
    """Copy into a run folder what other folders of the same study have and it has not.

    What is copied is checked first. Where two folders have a job, that of `into` stays. Where there
    is no such folder it is begun, for the study of the first of the others.

    Raises:
        RunFolderError: A folder holds another study, was run by another version or with other
            evidence, has another gallery, or is worked in; nothing was copied from it.
        StorageError: `into` may not be written.
    """
    if others and not into.exists():
        manifests.read(others[0])  # a run folder of this version
        with storage_errors(into):
            into.mkdir(mode=0o700, parents=True)
        _copy(others[0] / manifests.FILE, into / manifests.FILE)
    manifest, count, unlike = manifests.read(into), 0, []
    with lease.alone(into):
        if read_removals(into):
            raise RunFolderError(f"evidence was removed from {str(into)!r}: nothing is added.")
        for other in others:
            _check_alike(into, manifest, other)
            with lease.alone(other):
                source = RunFolder(other)
                have = set(check_jobs(RunFolder(into), manifest.jobs).done)
                whole = set(check_jobs(source, manifest.jobs).done)
                _copy_shared(other, into)
                for job in (job for job in manifest.jobs if job.key in whole):
                    if job.key in have:
                        if _result(into, job) != _result(other, job):
                            unlike.append(job.key)
                        continue
                    _copy_job(other, into, job)
                    count += 1
        rest = check_jobs(RunFolder(into), manifest.jobs)
        forget_failures(into, rest.done)
        hash_list.record(into)
    return Merge(count, tuple(unlike), len(rest.missing))


def _check_alike(into: Path, manifest: manifests.Manifest, other: Path) -> None:
    there = manifests.read(other)
    if read_removals(other):
        raise RunFolderError(f"evidence was removed from {str(other)!r}: it is no source of cells.")
    manifests.check_same(into, manifest, there.study, there.evidence)
    if there.fedaudit != manifest.fedaudit:
        raise RunFolderError(
            f"{str(other)!r} was run by fedaudit {there.fedaudit}, and {str(into)!r} by "
            f"{manifest.fedaudit}: cells of both would not be comparable."
        )


def _copy_shared(other: Path, into: Path) -> None:
    """What all cells of a folder were judged by: galleries, and the facts of the data.

    Raises:
        RunFolderError: The folders have others.
    """
    for file in sorted(other.glob("gallery*")):
        mine = into / file.name
        if mine.exists() and regular_file.sha256(mine) != regular_file.sha256(file):
            raise RunFolderError(
                f"{str(file)!r} is another gallery than that of {str(into)!r}: their cells were "
                "judged by other faces or another embedder, and cannot be compared."
            )
        _copy(file, mine)
    if (other / FACTS).exists():
        _copy(other / FACTS, into / FACTS)


def _copy_job(other: Path, into: Path, job: manifests.ListedJob) -> None:
    """The record last: its presence says that the rest is complete."""
    if job.kind == CELLS and (other / EVIDENCE).is_dir():
        for file in (other / EVIDENCE).glob("*.safetensors*"):
            _copy(file, into / EVIDENCE / file.name)
    for file in (other / job.kind).glob(f"{_quote(job.key)}.safetensors*"):
        _copy(file, into / job.kind / file.name)
    _copy(other / job.kind / f"{job.key}.json", into / job.kind / f"{job.key}.json")
    _forget_unfinished(into, job.key)


def _forget_unfinished(path: Path, key: str) -> None:
    """Nothing goes on from what a job that is done had kept on its way."""
    for file in (path / UNFINISHED).glob(f"{_quote(key)}.*"):
        file.unlink(missing_ok=True)


def _copy(file: Path, to: Path) -> None:
    if to.exists():
        return
    with storage_errors(to):
        to.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(to, regular_file.read_bytes(file, regular_file.LARGEST))


def _result(path: Path, job: manifests.ListedJob) -> str:
    """The hash of what a job computed, without the time that it took."""
    record = regular_file.read_json(path / job.kind / f"{job.key}.json")
    return str(record["sha256"])


def _quote(key: str) -> str:
    """A key in a pattern of file names."""
    return key.replace("[", "[[]")
