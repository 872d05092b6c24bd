"""What a worker process does: take a job, do it, say how it went, until there are no more."""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from fedaudit.core.errors import FedauditError, StorageError
from fedaudit.files.atomic import storage_error

READY = "ready"
BEAT = "beat"
BEAT_SECONDS = 2.0
"""How often a worker says that it lives, whatever it does meanwhile."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: "storage" says that the disk refused, so that no other job can succeed either;
            "skipped" that a job which this one needs has failed.
        seconds: Wall time.
    """

    key: str
    status: Literal["done", "failed", "skipped", "storage"]
    message: str = ""
    seconds: float = 0.0


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("FEDAUDIT_DEBUG", "") not in {"", "0"}


def serve(connection: Connection, work: Callable[[Any], None], threads: int) -> None:
    """Main function of a worker process.

    Args:
        connection: Brings jobs, None at the end; takes `READY` once, then an `Outcome` a job, and
            `BEAT` all the while.
        work: Does one job.
        threads: Of torch. The same for any number of workers, because sums in another order give
            other bytes.
    """
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    send = _beating(connection)
    # stdout is for data: what a library prints goes to stderr.
    sys.stdout.flush()
    os.dup2(2, 1)
    if not debugging():
        warnings.simplefilter("ignore")
    import torch  # noqa: PLC0415 - seconds, and only workers need it

    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        send(READY)
        while (job := connection.recv()) is not None:
            send(_attempt(work, job))


def _beating(connection: Connection) -> Callable[[object], None]:
    """Say in the background that this process lives; returns what sends messages between beats."""
    turn = threading.Lock()

    def send(message: object) -> None:
        with turn:
            connection.send(message)

    def beat() -> None:
        with contextlib.suppress(OSError):  # the parent is gone
            while True:
                time.sleep(BEAT_SECONDS)
                send(BEAT)

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
    return send


def _attempt(work: Callable[[Any], None], job: Any) -> Outcome:
    started = time.monotonic()
    status: Literal["done", "failed", "storage"] = "done"
    message = ""
    try:
        work(job)
    except StorageError as error:
        status, message = "storage", str(error)
    except FedauditError as error:
        status, message = "failed", str(error)
    except Exception as error:
        full = storage_error(error) if isinstance(error, OSError) else None
        status = "storage" if full else "failed"
        message = str(full) if full else f"{type(error).__name__}: {error}"
    if status != "done" and debugging():
        message += "\n" + traceback.format_exc()
    return Outcome(job.key, status, message, time.monotonic() - started)


def _die_with_parent() -> None:
    """Leave at once when the parent dies, even by SIGKILL: nobody waits for the result."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
