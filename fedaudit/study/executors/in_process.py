"""Jobs one after another in this process: to debug, to profile, and inside a cluster's task."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedaudit.study.executors.pool import Pool, Resources, Task, Work
from fedaudit.study.worker import Outcome, attempt, torch_threads


@dataclass(frozen=True)
class InProcess:
    """Does each job where it is asked for.

    Args:
        resources: Of a job; its memory is not limited, as that would end this process.
        limit: Seconds that a job may take; None for no limit. Only the main thread can be stopped.
    """

    resources: Resources = field(default_factory=Resources)
    limit: float | None = None
    slots: int = field(default=1, init=False)

    @contextmanager
    def __call__(self, work: Work, jobs: Sequence[Task], folder: Path | None) -> Iterator[Pool]:
        """As `Executor`."""
        with torch_threads(self.resources.cores):
            yield _Here(work, self.limit)


class _Here:
    def __init__(self, work: Work, limit: float | None) -> None:
        self._work, self._limit = work, limit
        self._job: Task | None = None

    def free(self, waiting: int) -> int:
        return int(self._job is None)

    def begin(self, job: Task) -> None:
        self._job = job

    def collect(self, seconds: float) -> Sequence[Outcome]:
        job, self._job = self._job, None
        if job is None:  # another process does what is left
            time.sleep(seconds)
            return ()
        return (attempt(self._work, job, self._limit),)
