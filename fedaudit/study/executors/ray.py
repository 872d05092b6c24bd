"""Jobs as tasks of a Ray cluster, one that runs already or one that is started here.

Nodes share the run folder, as a file system that all of them mount at the same path. Ray places the
jobs by what they take, so that several share a GPU. A job whose node dies is begun again elsewhere.
"""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedaudit.core.errors import FedauditError, UsageError
from fedaudit.study.executors.node_check import NodeCheck, node_check
from fedaudit.study.executors.pool import Lost, Pool, Resources, Task, Work, default_workers
from fedaudit.study.worker import LESS_MEMORY, Outcome, attempt, torch_threads

COUNT_AGAIN = 5.0
"""Seconds between two looks at how many jobs the cluster has room for; nodes come and go."""


@dataclass(frozen=True)
class RayTasks:
    """Runs jobs on a Ray cluster.

    Args:
        workers: How many jobs run at once; as many as the cluster has room for by default.
        resources: What a job takes.
        limit: Seconds that a job may take; None for no limit.
        address: Of the head node, "ray://host:port", or "auto"; None starts a cluster of this
            machine.
    """

    workers: int | None = None
    resources: Resources = field(default_factory=Resources)
    limit: float | None = None
    address: str | None = None

    @property
    def slots(self) -> int:
        """How many jobs run at once, as far as is known before."""
        return self.workers or max(1, default_workers() // self.resources.cores)

    @contextmanager
    def __call__(self, work: Work, jobs: Sequence[Task], folder: Path | None) -> Iterator[Pool]:
        """As `Executor`.

        Raises:
            UsageError: Ray is not installed, or no cluster is at the address.
        """
        ray = _ray()
        ours = not ray.is_initialized()
        logs = _connect(ray, self) if ours else None
        try:
            yield _Tasks(ray, work, self, node_check(folder, work))
        finally:
            if ours:
                ray.shutdown()
        if logs:  # of a cluster that served and is no more
            shutil.rmtree(logs, ignore_errors=True)


class _Tasks:
    def __init__(self, ray: Any, work: Work, settings: RayTasks, check: NodeCheck) -> None:
        self._ray, self._settings = ray, settings
        needs = settings.resources
        # Ray does not try again by itself: the scheduler counts the tries.
        options = {"num_cpus": needs.cores, "num_gpus": needs.gpu, "max_retries": 0}
        if needs.memory:
            options["memory"] = needs.memory
        self._do = ray.remote(**options)(_do)
        self._common = ray.put((work, needs.cores, settings.limit, check))
        self._running: dict[Any, str] = {}
        self._slots, self._counted = 0, -COUNT_AGAIN

    def free(self, waiting: int) -> int:
        if time.monotonic() - self._counted > COUNT_AGAIN:
            self._slots, self._counted = self._room(), time.monotonic()
        return max(0, min(waiting, self._slots - len(self._running)))

    def begin(self, job: Task) -> None:
        self._running[self._do.remote(self._common, job)] = job.key

    def collect(self, seconds: float) -> Sequence[Outcome | Lost]:
        if not self._running:  # other processes do what is left
            time.sleep(seconds)
            return ()
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(
                list(self._running), num_returns=len(self._running), timeout=0
            )
        return [self._result(ref) for ref in ready]

    def _result(self, ref: Any) -> Outcome | Lost:
        key, errors = self._running.pop(ref), self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(ref)
        except errors.OutOfMemoryError:
            return Lost(key, "Ray ended it because its node ran out of memory", advice=LESS_MEMORY)
        except errors.RayTaskError as error:  # before the job began: the node cannot do any
            cause = error.cause
            if isinstance(cause, FedauditError):
                raise cause from None
            raise FedauditError(
                f"a node of the cluster cannot do any job: {str(cause)[:500]}. Every node needs "
                "fedaudit as it is here, and the packages that the study names."
            ) from error
        except errors.RayError as error:
            self._counted = -COUNT_AGAIN
            is_lost = not isinstance(error, errors.WorkerCrashedError)
            return Lost(
                key, f"{type(error).__name__}: the worker or its node died", counts=not is_lost
            )
        return outcome

    def _room(self) -> int:
        needs, there = self._settings.resources, self._ray.cluster_resources()
        room = there.get("CPU", 0) // needs.cores
        if needs.gpu:
            room = min(room, there.get("GPU", 0) // needs.gpu)
        if needs.memory:
            room = min(room, there.get("memory", 0) // needs.memory)
        if room < 1:
            raise UsageError(
                f"no node of the Ray cluster has what a job takes ({needs.cores} cores, "
                f"{needs.gpu:g} of a GPU, {(needs.memory or 0) / 1e9:g} GB); the cluster has "
                f"{there.get('CPU', 0):g} cores and {there.get('GPU', 0):g} GPUs. Ask for less."
            )
        return min(int(room), self._settings.workers or int(room))


def _do(common: tuple[Work, int, float | None, NodeCheck], job: Task) -> Outcome:
    """Do a job in a worker of Ray."""
    import sys  # noqa: PLC0415 - of that process

    work, threads, limit, check = common
    check()
    if check.place is not None:
        os.chdir(check.place)  # a cluster that runs already has a folder of its own
    with torch_threads(threads), redirect_stdout(sys.stderr):
        return attempt(work, job, limit)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an audit tells nobody that it runs
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.exceptions  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "--executor ray needs Ray, which is not installed: pip install 'fedaudit[ray]'."
        ) from error
    return ray


def _connect(ray: Any, settings: RayTasks) -> str | None:
    """Connect, and say where the logs of a cluster are that was started for it."""
    quiet = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
    if settings.address is None:
        context = ray.init(
            address="local",
            num_cpus=settings.slots * settings.resources.cores,
            include_dashboard=False,
            **quiet,
        )
        return str(context.address_info["session_dir"])
    try:
        _knock(settings.address)
        ray.init(address=settings.address, **quiet)
    except Exception as error:  # of another version, unreachable, no address: each its own kind
        raise UsageError(
            f"no Ray cluster answers at {settings.address!r}: {str(error)[:300]}. `ray start "
            "--head` starts one and prints its address; its nodes need the same versions of Ray "
            "and Python. Without --address one is started here."
        ) from error
    return None


def _knock(address: str) -> None:
    """Refuse at once an address where nobody listens, for which Ray waits minutes.

    Raises:
        OSError: Nobody does.
    """
    match = re.fullmatch(r"(?:ray://)?(\[.+\]|[^:/]+):(\d+)", address)
    if match:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=5).close()
