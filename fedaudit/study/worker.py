"""What a worker process does: take a job, do it, say how it went, until there are no more."""

import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from fedaudit.core.errors import AttackError, FedauditError, StorageError
from fedaudit.files.atomic import storage_error

with contextlib.suppress(ImportError):  # Windows has none
    import resource

READY = "ready"
BEAT = "beat"
BEAT_SECONDS = 2.0
"""How often a worker says that it lives, whatever it does meanwhile."""

WATCHES = 20
"""How often it looks at its memory between two such signs."""

IDLE = 0.5
"""Seconds without a job after which a new worker prepares for later ones."""

LESS_MEMORY = "Fewer --workers need less memory, and so do fewer images at once or smaller ones."


LATE = (
    "it took longer than {limit:g} s, the limit, and was ended. Raise --cell-timeout if it is slow."
)
MEMORY_EXIT = 77
"""Exit code of a worker that ended itself because its job took more memory than it may."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: "storage" says that the disk refused, so that no other job can succeed either;
            "skipped" that a job which this one needs has failed; "left" that it was not begun,
            because the budget was used up.
        seconds: Wall time; None where another process did it.
        memory: The most bytes that its process has held so far; 0 where that is not known.
    """

    key: str
    status: Literal["done", "failed", "skipped", "storage", "left"]
    message: str = ""
    seconds: float | None = None
    memory: int = 0


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("FEDAUDIT_DEBUG", "") not in {"", "0"}


def serve(
    connection: Connection,
    work: Callable[[Any], None],
    threads: int,
    memory: int | None = None,
    card: int | None = None,
) -> None:
    """Main function of a worker process.

    Args:
        connection: Brings jobs, None at the end; takes `READY` once, then an `Outcome` a job, and
            `BEAT` all the while.
        work: Does one job.
        threads: Of torch. The same for any number of workers, because sums in another order give
            other bytes.
        memory: Bytes above which this process ends itself; None for no limit.
        card: The only GPU that it sees, among those of its parent; None for all.
    """
    if card is not None:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = (
            seen[card] if card < len(seen) and seen[0] else f"{card}"
        )
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    send = _beating(connection, memory)
    # stdout is for data: what a library prints goes to stderr.
    sys.stdout.flush()
    os.dup2(2, 1)
    with torch_threads(threads), contextlib.suppress(EOFError, BrokenPipeError):
        send(READY)  # a broken pipe says that the parent is gone
        if not connection.poll(IDLE):
            _prepare(work)
        while (job := connection.recv()) is not None:
            send(attempt(work, job))


def _prepare(work: Callable[[Any], None]) -> None:
    """Do what later jobs need, where the work says what; a job says best what cannot be done."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(work, "prepare", lambda: None)()


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Compute on so many threads inside the block."""
    import torch  # noqa: PLC0415 - seconds, and only workers need it

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _beating(connection: Connection, memory: int | None) -> Callable[[object], None]:
    """Send heartbeats in the background; returns what sends messages between them."""
    turn = threading.Lock()

    def send(message: object) -> None:
        with turn:
            connection.send(message)

    def beat() -> None:
        with contextlib.suppress(OSError):  # the parent is gone
            while True:
                for _ in range(WATCHES):
                    time.sleep(BEAT_SECONDS / WATCHES)
                    if memory is not None and resident_memory() > memory:
                        os._exit(MEMORY_EXIT)
                send(BEAT)

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
    return send


def resident_memory() -> int:
    """Bytes of memory that this process holds, or the most that it held where only that is told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """The most bytes of memory that this process has held; 0 where the system does not tell."""
    with contextlib.suppress(OSError):  # on Linux; what getrusage says counts the parent's, too
        status = Path("/proc/self/status").read_text()
        if peak_line := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(peak_line[1]) * 1024
    if "resource" not in globals():
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def attempt(work: Callable[[Any], None], job: Any, limit: float | None = None) -> Outcome:
    """Do a job; whatever it raises becomes its outcome.

    Args:
        work: Does it.
        job: Has a key.
        limit: Seconds after which it is stopped, in the main thread of a process.
    """
    start = time.monotonic()
    status: Literal["done", "failed", "storage"] = "done"
    message = ""
    try:
        with warnings.catch_warnings(), _stopped_after(limit):
            if not debugging():
                warnings.simplefilter("ignore")
            work(job)
    except StorageError as error:
        status, message = "storage", str(error)
    except FedauditError as error:
        status, message = "failed", str(error)
    except Exception as error:
        full = storage_error(error) if isinstance(error, OSError) else None
        status = "storage" if full else "failed"
        message = str(full) if full else _words(error)
    if status != "done" and debugging():
        message += "\n" + traceback.format_exc()
    return Outcome(job.key, status, message, time.monotonic() - start, peak_memory())


def _words(error: Exception) -> str:
    """What an error that nobody foresaw says, and what to do where memory ran out."""
    words = f"{type(error).__name__}: {error}"
    short = isinstance(error, MemoryError) or re.search("(?i)out of memory|allocate memory", words)
    return f"it ran out of memory ({words[:300]}). {LESS_MEMORY}" if short else words


class _TooLongError(Exception):
    """A job did not end in time."""


@contextlib.contextmanager
def _stopped_after(limit: float | None) -> Iterator[None]:
    """Raise inside the block when it takes longer; only the main thread can be stopped so."""
    main = threading.current_thread() is threading.main_thread()
    if limit is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise _TooLongError(LATE.format(limit=limit))

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    except _TooLongError as error:
        raise AttackError(str(error)) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _die_with_parent() -> None:
    """Leave at once when the parent dies, even by SIGKILL: nobody waits for the result."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
