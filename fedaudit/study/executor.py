"""Does jobs in worker processes, and outlives them.

Each worker has its own pipe, so that it is known which job a dying worker had (`concurrent.futures`
breaks the whole pool instead).
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Literal, Protocol

from fedaudit.core.errors import FedauditError, StorageError
from fedaudit.study.worker import BEAT, READY, Outcome, serve

TRIES = 2
"""How often a job is begun that takes its worker down with it."""

SILENCE = 120.0
"""Seconds without a heartbeat after which a worker is killed, and its job begun again.

While a worker starts, which on a busy computer takes long, it is five times as many.
"""

GRACE = 1.0
"""Seconds in which workers may finish writing after an interrupt."""


_CONTEXT = multiprocessing.get_context("spawn")  # torch does not survive a fork


class Task(Protocol):
    """What the executor must know of a job."""

    @property
    def key(self) -> str:
        """Names it."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of jobs that must be done before."""
        ...


@dataclass(frozen=True)
class Event:
    """Something to show: "waiting" comes about once a second and names no job."""

    kind: Literal["started", "finished", "retried", "waiting"]
    key: str = ""
    outcome: Outcome | None = None


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    job: Task | None = None
    heard: float = field(default_factory=time.monotonic)
    begun: float = 0.0
    silent: bool = False
    late: bool = False


@dataclass
class _Board:
    """What is to be done, and what became of the rest."""

    jobs: Mapping[str, Task]
    waiting: list[Task]
    on_event: Callable[[Event], None]
    limit: float | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)

    def record(self, outcome: Outcome) -> None:
        self.outcomes[outcome.key] = outcome
        self.on_event(Event("finished", outcome.key, outcome))
        if outcome.status == "storage":
            raise StorageError(outcome.message)

    def next(self) -> Task | None:
        """The first job whose needs are done; those whose needs have failed are skipped."""
        for job in tuple(self.waiting):
            ours = [need for need in job.needs if need in self.jobs]
            if any(need not in self.outcomes for need in ours):
                continue
            self.waiting.remove(job)
            if all(self.outcomes[need].status == "done" for need in ours):
                return job
            why = "the model that it attacks could not be trained"
            self.record(Outcome(job.key, "skipped", why))
        return None


def default_workers() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def execute(
    jobs: Sequence[Task],
    work: Callable[[Any], None],
    *,
    workers: int | None = None,
    threads: int = 1,
    limit: float | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> tuple[Outcome, ...]:
    """Do every job, in order where their needs allow.

    Results do not depend on the number of workers: jobs share nothing, and each worker has
    `threads` torch threads.

    Args:
        jobs: What to do; needs that are not among them count as done.
        work: Called in a worker; picklable, as are the jobs. It keeps its result itself.
        workers: Number of processes; as many as CPU cores by default.
        threads: Torch threads of each worker.
        limit: Seconds after which a job is ended, and has failed; None for no limit. A heartbeat
            only says that a process lives, not that its job gets on.
        on_event: Called in this process.

    Returns:
        One outcome a job, in the order of `jobs`.

    Raises:
        StorageError: The disk refused; what was finished is kept.
        KeyboardInterrupt: The user interrupted; what was finished is kept.
    """
    board = _Board({job.key: job for job in jobs}, list(jobs), on_event, limit)
    with _worker_pool() as pool:
        bad_starts = 0
        last = time.monotonic()
        while len(board.outcomes) < len(board.jobs):
            _start_workers(pool, board, work, workers or default_workers(), threads)
            _assign(pool, board)
            readable = wait([worker.connection for worker in pool], timeout=1.0)
            on_event(Event("waiting"))
            last = _kill_stuck(pool, last, limit)
            for worker in [worker for worker in pool if worker.connection in readable]:
                message = _receive(worker)
                worker.heard = time.monotonic()
                if message == BEAT:
                    continue
                if isinstance(message, Outcome):
                    worker.job = None
                    board.record(message)
                elif message == READY:
                    worker.ready, bad_starts = True, 0
                else:
                    pool.remove(worker)
                    bad_starts += not worker.ready
                    _handle_death(worker, board, bad_starts)
    return tuple(board.outcomes[job.key] for job in jobs)


def _kill_stuck(pool: Iterable[_Worker], last: float, limit: float | None) -> float:
    """Kill workers that were stopped or hang, and those whose job takes longer than it may.

    Args:
        pool: All workers.
        last: When this was called before. If that is long ago, this process itself was stopped,
            and the workers with it.
        limit: Seconds that a job may take.

    Returns:
        The time now.
    """
    now = time.monotonic()
    for worker in pool:
        if now - last > SILENCE / 4:
            worker.heard = now
            worker.begun += now - last
        elif worker.silent or worker.late:
            continue
        elif now - worker.heard > SILENCE * (1 if worker.ready else 5):
            worker.silent = True
            worker.process.kill()
        elif worker.job and limit is not None and now - worker.begun > limit:
            worker.late = True
            worker.process.kill()
    return now


def _start_workers(
    pool: list[_Worker], board: _Board, work: Callable[[Any], None], count: int, threads: int
) -> None:
    """Start workers while there is something for them to do."""
    idle = sum(worker.job is None for worker in pool)
    while len(pool) < count and idle < len(board.waiting):
        pool.append(_start_worker(work, threads))
        idle += 1


def _start_worker(work: Callable[[Any], None], threads: int) -> _Worker:
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=serve, args=(theirs, work, threads), daemon=True)
    with _interrupts_held():
        process.start()
    theirs.close()  # so that the worker's death ends the pipe
    return _Worker(process, ours)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a worker is started, and have the worker born with it blocked.

    The mask is what a worker inherits, until it ignores SIGINT. It does not keep the signal from
    this process: another thread, of a library, may take it, and a start that breaks off between
    the birth of a worker and its first message leaves a worker that dies of it aloud.
    """
    arrived: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and handler is not None
    if ours:
        signal.signal(signal.SIGINT, lambda number, frame: arrived.append((number, frame)))
    has_masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if has_masks else set()
    try:
        yield
    finally:
        if has_masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if ours:
            signal.signal(signal.SIGINT, handler)
            if arrived and callable(handler):
                handler(*arrived[0])


def _assign(pool: Iterable[_Worker], board: _Board) -> None:
    for worker in pool:
        dying = worker.silent or worker.late
        if worker.ready and not dying and worker.job is None and (job := board.next()):
            board.tries[job.key] += 1
            worker.job, worker.begun = job, time.monotonic()
            with contextlib.suppress(OSError):  # it died idle; that is noticed next
                worker.connection.send(job)
            board.on_event(Event("started", job.key))


def _receive(worker: _Worker) -> object:
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        return None


def _handle_death(worker: _Worker, board: _Board, bad_starts: int) -> None:
    """A worker died: try its job once more, last, when others may have freed memory."""
    worker.process.join(5)
    worker.connection.close()
    code = worker.process.exitcode
    killed = code is not None and code == -getattr(signal, "SIGKILL", 9)
    cause = f"exit code {code}{', probably out of memory' if killed else ''}"
    if worker.silent:
        cause = f"it was stopped or hung, gave no sign for {SILENCE:g} s, and was killed"
    if bad_starts > TRIES:
        raise FedauditError(
            f"worker processes cannot start ({cause}); their messages stand above. "
            "Fewer --workers need less memory."
        )
    if (job := worker.job) is None:
        return
    if worker.late:  # the same job would take as long again
        message = f"it took longer than {board.limit:g} s, the limit, and was ended. "
        board.record(Outcome(job.key, "failed", f"{message}Raise --job-limit if it is only slow."))
        return
    if board.tries[job.key] < TRIES:
        board.waiting.append(job)
        board.on_event(Event("retried", job.key))
        return
    advice = "" if worker.silent else " Fewer --workers need less memory."
    message = f"its worker process died {TRIES} times ({cause}).{advice}"
    board.record(Outcome(job.key, "failed", message))


@contextlib.contextmanager
def _worker_pool() -> Iterator[list[_Worker]]:
    """Workers that are gone when the block ends, however it ends."""
    pool: list[_Worker] = []
    try:
        yield pool
    finally:
        deadline = time.monotonic() + GRACE
        try:
            for worker in pool:  # the idle leave now, the busy when their job is done
                with contextlib.suppress(OSError):
                    worker.connection.send(None)
            for worker in pool:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in pool:
                worker.process.kill()
                worker.process.join()
                worker.connection.close()
