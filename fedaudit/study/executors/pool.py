"""What the scheduler asks of a place where jobs are done."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedaudit.study.worker import Outcome

Work = Callable[[Any], None]
"""Does one job and keeps its result itself; picklable, as are the jobs."""


class Task(Protocol):
    """What must be known of a job to do it."""

    @property
    def key(self) -> str:
        """Names it."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of jobs that must be done before."""
        ...


@dataclass(frozen=True)
class Resources:
    """What one job takes.

    Attributes:
        cores: CPU cores, and as many threads of torch. Sums in another order differ in the last
            bits, so that all cells that are compared are to have as many.
        memory: Bytes, None for no limit. A job that takes more is ended, and has failed.
        gpu: Share of one card, from 0 to 1; jobs of 0.25 run four at a time on it.
    """

    cores: int = 1
    memory: int | None = None
    gpu: float = 0.0


@dataclass(frozen=True)
class Lost:
    """A job whose worker died.

    Attributes:
        cause: Why, in words.
        counts: Whether it may be the job's fault, so that it is begun a few times only.
        final: Whether it would end like this each time.
        advice: What to do, a sentence; "" where there is nothing.
    """

    key: str
    cause: str
    counts: bool = True
    final: bool = False
    advice: str = ""


class Pool(Protocol):
    """Workers that wait for jobs."""

    def free(self, waiting: int) -> int:
        """How many of the waiting jobs can begin now; workers may be started for them."""
        ...

    def begin(self, job: Task) -> None:
        """Begin a job; called after `free` has said that one can begin."""
        ...

    def collect(self, seconds: float) -> Sequence[Outcome | Lost]:
        """What has ended since; waits for so many seconds at most, where nothing has.

        Raises:
            FedauditError: No job can be done here at all.
        """
        ...


class Executor(Protocol):
    """What `--executor` chooses."""

    @property
    def slots(self) -> int:
        """How many jobs run at once, as far as is known before."""
        ...

    def __call__(
        self, work: Work, jobs: Sequence[Task], folder: Path | None
    ) -> AbstractContextManager[Pool]:
        """Workers that are gone when the block ends, however it ends.

        Args:
            work: Does a job.
            jobs: All that there are to do.
            folder: Where their leases are; None where nobody else does them.
        """
        ...


def default_workers() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
