"""Jobs in worker processes of this machine, and what outlives them.

Each worker has its own pipe, so that it is known which job a dying worker had (`concurrent.futures`
breaks the whole pool instead).
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from fedaudit.core.errors import FedauditError
from fedaudit.study.executors.pool import Lost, Pool, Resources, Task, Work, default_workers
from fedaudit.study.worker import BEAT, LATE, LESS_MEMORY, MEMORY_EXIT, READY, Outcome, serve

SILENCE = 120.0
"""Seconds without a heartbeat after which a worker is killed, and its job begun again.

While a worker starts, which on a busy computer takes long, it is five times as many.
"""

BAD_STARTS = 2
"""How many workers may die in a row before they are ready."""

GRACE = 1.0
"""Seconds in which workers may finish writing after an interrupt."""


_CONTEXT = multiprocessing.get_context("spawn")  # torch does not survive a fork


@dataclass(frozen=True)
class LocalProcesses:
    """Processes of this machine, each with a job at a time.

    Results do not depend on their number: jobs share nothing.

    Args:
        slots: How many; as many as there are CPU cores by default.
        resources: What a job takes.
        limit: Seconds after which a job is ended, and has failed; None for no limit. A heartbeat
            only says that a process lives, not that its job gets on.
        cards: GPUs among which the processes are spread.
    """

    slots: int = field(default_factory=default_workers)
    resources: Resources = field(default_factory=Resources)
    limit: float | None = None
    cards: int = 1

    @contextlib.contextmanager
    def __call__(self, work: Work, jobs: Sequence[Task], folder: Path | None) -> Iterator[Pool]:
        """As `Executor`."""
        pool = _Processes(work, self)
        try:
            yield pool
        finally:
            pool.close()


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
    card: int | None = None

    @property
    def idle(self) -> bool:
        return self.ready and self.job is None and not self.silent and not self.late


class _Processes:
    def __init__(self, work: Work, settings: LocalProcesses) -> None:
        self._work, self._count, self._cards = work, settings.slots, settings.cards
        self._resources, self._limit = settings.resources, settings.limit
        self._workers: list[_Worker] = []
        self._bad_starts = 0
        self._last = time.monotonic()

    def free(self, waiting: int) -> int:
        idle = sum(worker.job is None for worker in self._workers)
        while len(self._workers) < self._count and idle < waiting:
            self._workers.append(self._start())
            idle += 1
        return sum(worker.idle for worker in self._workers)

    def begin(self, job: Task) -> None:
        worker = next(worker for worker in self._workers if worker.idle)
        worker.job, worker.begun = job, time.monotonic()
        with contextlib.suppress(OSError):  # it died idle; that is noticed next
            worker.connection.send(job)

    def collect(self, seconds: float) -> Sequence[Outcome | Lost]:
        if not self._workers:  # other processes do what is left
            time.sleep(seconds)
        readable = wait([worker.connection for worker in self._workers], timeout=seconds)
        self._kill_stuck()
        outcomes: list[Outcome | Lost] = []
        for worker in [worker for worker in self._workers if worker.connection in readable]:
            message = _receive(worker)
            worker.heard = time.monotonic()
            if isinstance(message, Outcome):
                worker.job = None
                outcomes.append(message)
            elif message == READY:
                worker.ready, self._bad_starts = True, 0
            elif message != BEAT:
                self._workers.remove(worker)
                outcomes += self._bury(worker)
        return outcomes

    def _kill_stuck(self) -> None:
        """Kill workers that were stopped or hang, and those whose job takes too long."""
        now = time.monotonic()
        away = now - self._last > SILENCE / 4  # this process was stopped, and they with it
        for worker in self._workers:
            if away:
                worker.heard = now
                worker.begun += now - self._last
            elif worker.silent or worker.late:
                continue
            elif now - worker.heard > SILENCE * (1 if worker.ready else 5):
                worker.silent = True
                worker.process.kill()
            elif worker.job and self._limit is not None and now - worker.begun > self._limit:
                worker.late = True
                worker.process.kill()
        self._last = now

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        settings = (self._resources.cores, self._resources.memory, self._next_card())
        process = _CONTEXT.Process(target=serve, args=(theirs, self._work, *settings), daemon=True)
        if os.name == "posix":  # started with the first worker, it would unblock SIGINT here
            resource_tracker.ensure_running()
        with _interrupts_held():
            process.start()
        theirs.close()  # so that the worker's death ends the pipe
        return _Worker(process, ours, card=settings[-1])

    def _next_card(self) -> int | None:
        """The card that has the fewest workers; None where there is no choice."""
        if self._cards == 1:
            return None
        cards = [worker.card for worker in self._workers]
        return min(range(self._cards), key=cards.count)

    def _bury(self, worker: _Worker) -> list[Lost]:
        """What a dead worker leaves: its job."""
        worker.process.join(5)
        worker.connection.close()
        code = worker.process.exitcode
        by_kill = code is not None and code == -getattr(signal, "SIGKILL", 9)
        cause = f"exit code {code}{', probably out of memory' if by_kill else ''}"
        if worker.silent:
            cause = f"it was stopped or hung, gave no sign for {SILENCE:g} s, and was killed"
        self._bad_starts += not worker.ready
        if self._bad_starts > BAD_STARTS:
            raise FedauditError(
                f"worker processes cannot start ({cause}); their messages stand above. "
                "Fewer --workers need less memory."
            )
        if (job := worker.job) is None:
            return []
        if worker.late and self._limit is not None:
            return [Lost(job.key, LATE.format(limit=self._limit), final=True)]
        if code == MEMORY_EXIT and (limit := self._resources.memory):
            cause = f"it took more memory than {limit / 1e9:.3g} GB, the limit, and was ended."
            advice = "Raise --cell-memory if it needs more."
            return [Lost(job.key, cause, final=True, advice=advice)]
        return [Lost(job.key, cause, advice="" if worker.silent else LESS_MEMORY)]

    def close(self) -> None:
        deadline = time.monotonic() + GRACE
        try:
            for worker in self._workers:  # the idle leave now, the busy when their job is done
                with contextlib.suppress(OSError):
                    worker.connection.send(None)
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()
                worker.connection.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a worker is started, and have the worker born with it blocked.

    The mask is what a worker inherits, until it ignores SIGINT. It does not keep the signal from
    this process: another thread, of a library, may take it, and a start that breaks off between
    the birth of a worker and its first message leaves a worker that dies of it aloud.
    """
    signals: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and handler is not None
    if ours:
        signal.signal(signal.SIGINT, lambda number, frame: signals.append((number, frame)))
    has_masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if has_masks else set()
    try:
        yield
    finally:
        if has_masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if ours:
            signal.signal(signal.SIGINT, handler)
            if signals and callable(handler):
                handler(*signals[0])


def _receive(worker: _Worker) -> object:
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        return None
