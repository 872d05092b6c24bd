"""Jobs in an array of Slurm, each of whose tasks takes cells from the shared run folder.

The process that submits it does no job itself: it watches the folder, and may be killed. A task
that Slurm preempts or whose time is over is queued again, and goes on from the checkpoint of its
attack.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedaudit.core.errors import FedauditError, UsageError
from fedaudit.study.executors.local_processes import LocalProcesses
from fedaudit.study.executors.node_check import NodeCheck, node_check
from fedaudit.study.executors.pool import Lost, Pool, Resources, Task, Work
from fedaudit.study.worker import Outcome

FOLDER = ".slurm"
"""In the run folder: what is submitted, and what tasks print."""

HOURS = 4
"""Time of a task until it is queued again, where --slurm time=… says nothing."""

LINGER = 15.0
"""Seconds after the end of the last task in which the folder may still show what it did."""

GRACE = 5.0
"""Seconds in which tasks may end by themselves."""

OF_SUBMITIT = ("name", "nodes", "mem_gb", "gpus_per_node", "cpus_per_task", "timeout_min")
"""Settings that submitit knows on any cluster; all others are of Slurm."""


@dataclass(frozen=True)
class SlurmArray:
    """Runs jobs on a Slurm cluster.

    Args:
        slots: Tasks of the array.
        resources: What a job takes; several that share a GPU run in one task.
        limit: Seconds that a job may take; None for no limit.
        settings: How to submit: `partition`, `time`, `account` …, as submitit names them, and
            `cluster` ("local" submits to processes of this machine).
    """

    slots: int = 1
    resources: Resources = field(default_factory=Resources)
    limit: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def __call__(self, work: Work, jobs: Sequence[Task], folder: Path | None) -> Iterator[Pool]:
        """As `Executor`.

        Raises:
            UsageError: submitit is not installed, there is no Slurm, or it does not take a setting.
        """
        if folder is None:
            raise UsageError("tasks of Slurm take jobs from a run folder, and there is none.")
        place = folder.absolute() / FOLDER
        share = _Share(work, tuple(jobs), folder.absolute(), self, node_check(folder, work))
        tasks = _submit(share, self, place)
        try:
            yield _Array(tasks)
        finally:
            _end(tasks)
            shutil.rmtree(place, ignore_errors=True)


class _Array:
    """Watches the tasks; what they have done shows in the folder."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        self._tasks = tasks
        self._over: float | None = None

    def free(self, waiting: int) -> int:
        return 0

    def begin(self, job: Task) -> None:
        raise NotImplementedError("tasks take their jobs themselves")

    def collect(self, seconds: float) -> Sequence[Outcome | Lost]:
        time.sleep(seconds)
        if not all(task.done() for task in self._tasks):
            self._over = None
        elif self._over is None:
            self._over = time.monotonic()
        elif time.monotonic() - self._over > LINGER:
            words = next(filter(None, map(_complaint, self._tasks)), "no word of why")
            raise FedauditError(
                f"all tasks of the array ended before the study did: {words}. What is finished is "
                "kept; the same command goes on."
            )
        return ()


@dataclass(frozen=True)
class _Share:
    """What one task of the array does: jobs, as long as there are some that nobody else does."""

    work: Work
    jobs: tuple[Task, ...]
    folder: Path
    settings: SlurmArray
    check: NodeCheck

    def __call__(self) -> None:
        from fedaudit.files.lease import holding  # noqa: PLC0415 - imports torch
        from fedaudit.study.scheduler import execute  # noqa: PLC0415 - imports this
        from fedaudit.study.shared_jobs import SharedJobs  # noqa: PLC0415 - imports torch

        self.check()
        here = self.settings
        executor = LocalProcesses(_together(here.resources), here.resources, here.limit)
        with holding(self.folder) as leases:
            kinds = {job.key: job.kind for job in self.jobs}  # type: ignore[attr-defined]
            jobs = SharedJobs(self.folder, leases, kinds)
            execute(self.jobs, self.work, executor, shared=jobs)

    def checkpoint(self) -> Any:
        """What Slurm queues again: the same, as attacks keep how far they are."""
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 - an extra

        return DelayedSubmission(self)


def _end(tasks: Sequence[Any]) -> None:
    """Cancel the tasks that do not end by themselves, as they do when nothing is left to do."""
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and not all(task.done() for task in tasks):
        time.sleep(0.2)
    for task in tasks:
        with suppress(Exception):  # it has ended
            if not task.done():
                task.cancel()


def _together(needs: Resources) -> int:
    """Jobs that run at once in a task: those that share its card."""
    return max(1, int(1 / needs.gpu)) if needs.gpu else 1


def _submit(share: _Share, array: SlurmArray, place: Path) -> list[Any]:
    try:
        import submitit  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "--executor slurm needs submitit, which is not installed: pip install "
            "'fedaudit[slurm]'."
        ) from error
    needs, together = array.resources, _together(array.resources)
    settings: dict[str, Any] = {
        "name": "fedaudit",
        "cpus_per_task": needs.cores * together,
        "timeout_min": 60 * HOURS,
    }
    if needs.memory:
        settings["mem_gb"] = -(-needs.memory * together // 10**9)
    if needs.gpu:
        settings["gpus_per_node"] = 1
    extra = dict(array.settings)
    cluster = extra.pop("cluster", "slurm")
    settings |= {_known_as(name): int(v) if v.isdigit() else v for name, v in extra.items()}
    try:
        executor = submitit.AutoExecutor(place, cluster=cluster, slurm_max_num_timeout=1000)
        executor.update_parameters(**settings)
        with executor.batch():
            return [executor.submit(share) for _ in range(array.slots)]
    except Exception as error:  # each kind of cluster has its own
        raise UsageError(
            f"Slurm does not take the array: {str(error)[:300]}. --slurm takes settings as "
            "submitit names them, such as partition=gpu and timeout_min=240; `sinfo` shows "
            "whether this machine can submit."
        ) from error


def _known_as(name: str) -> str:
    return name if name in OF_SUBMITIT or name.startswith("slurm_") else f"slurm_{name}"


def _complaint(task: Any) -> str:
    """The last line of what a task said of its end."""
    with suppress(Exception):
        if error := task.exception():
            return str(error).strip().splitlines()[-1][:300]
    return ""
