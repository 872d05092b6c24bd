"""Does jobs in a pool of workers, whichever it is, and beside others who do the same jobs."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedaudit.core.errors import StorageError
from fedaudit.study.executors.pool import Executor, Lost, Pool, Task, Work
from fedaudit.study.shared_jobs import SharedJobs
from fedaudit.study.worker import Outcome

TRIES = 2
"""How often a job is begun that takes its worker down with it."""

NEEDS_MODEL = "the model that it attacks could not be trained"

LOOK = 1.0
"""Seconds between two looks at what others have done; more where a look takes long."""


@dataclass(frozen=True)
class Event:
    """Something to show: "waiting" comes about once a second and names no job."""

    kind: Literal["started", "finished", "retried", "waiting"]
    key: str = ""
    outcome: Outcome | None = None


def execute(
    jobs: Sequence[Task],
    work: Work,
    executor: Executor,
    *,
    shared: SharedJobs | None = None,
    budget: float | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> tuple[Outcome, ...]:
    """Do every job, in order where their needs allow.

    Args:
        jobs: What to do; needs that are not among them count as done.
        work: Does one job, in a worker. It keeps its result itself.
        executor: Where.
        shared: The folder whose jobs they are, in which others may work; None without one.
        budget: Seconds after which no further job begins; None for no limit.
        on_event: Called in this process.

    Returns:
        One outcome a job, in the order of `jobs`.

    Raises:
        StorageError: The disk refused; what was finished is kept.
        KeyboardInterrupt: The user interrupted; what was finished is kept.
    """
    board = _Board({job.key: job for job in jobs}, list(jobs), shared, on_event, budget)
    with executor(work, jobs, shared.folder if shared else None) as pool:
        while len(board.outcomes) < len(board.jobs):
            board.look()
            board.stop_at_budget()
            board.assign(pool)
            if len(board.outcomes) == len(board.jobs):
                break
            outcomes = pool.collect(LOOK)
            on_event(Event("waiting"))
            for one in outcomes:
                board.lost(one) if isinstance(one, Lost) else board.record(one)
    return tuple(board.outcomes[job.key] for job in jobs)


@dataclass
class _Board:
    """What is to be done, and what became of the rest."""

    jobs: Mapping[str, Task]
    waiting: list[Task]
    shared: SharedJobs | None
    on_event: Callable[[Event], None]
    budget: float | None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    elsewhere: dict[str, Task] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    begun: float = field(default_factory=time.monotonic)
    next_look: float = 0.0

    def record(self, outcome: Outcome, *, ours: bool = True) -> None:
        self.outcomes[outcome.key] = outcome
        if self.shared and ours:
            self.shared.keep(outcome)
        self.on_event(Event("finished", outcome.key, outcome))
        if outcome.status == "storage":
            raise StorageError(outcome.message)

    def lost(self, one: Lost) -> None:
        """A worker died: try its job once more, last, when others may have freed memory."""
        if one.final:
            message = f"{one.cause} {one.advice}".rstrip()
        elif not one.counts or self.tries[one.key] < TRIES:
            self.tries[one.key] -= not one.counts
            self.waiting.append(self.jobs[one.key])
            self.on_event(Event("retried", one.key))
            return
        else:
            message = f"its worker process died {TRIES} times ({one.cause}). {one.advice}".rstrip()
        self.record(Outcome(one.key, "failed", message))

    def look(self) -> None:
        """See what others have done, and take over what they have left."""
        now = time.monotonic()
        if self.shared is None or now < self.next_look:
            return
        theirs = {*(job.key for job in self.waiting), *self.elsewhere}
        for outcome in self.shared.ended(theirs):
            self.elsewhere.pop(outcome.key, None)
            self.record(outcome, ours=False)
        self.waiting = [job for job in self.waiting if job.key not in self.outcomes]
        self.waiting[:0] = self.elsewhere.values()  # whoever took them may be gone
        self.elsewhere.clear()
        self.next_look = now + max(LOOK, 50 * (time.monotonic() - now))

    def assign(self, pool: Pool) -> None:
        """Begin jobs while there are workers for them."""
        for _ in range(pool.free(len(self.waiting))):
            if (job := self._next()) is None:
                break
            self.tries[job.key] += 1
            pool.begin(job)
            self.on_event(Event("started", job.key))

    def stop_at_budget(self) -> None:
        """Leave what has not begun, once the budget is used up."""
        if self.budget is None or time.monotonic() - self.begun < self.budget:
            return
        for job in (*self.waiting, *self.elsewhere.values()):
            self.outcomes[job.key] = Outcome(job.key, "left")
        self.waiting.clear()
        self.elsewhere.clear()

    def _next(self) -> Task | None:
        """The first job whose needs are done and that nobody else does.

        Jobs whose needs have failed are skipped.
        """
        rest: list[Task] = []
        choice = None
        for place, job in enumerate(self.waiting):
            ours = [need for need in job.needs if need in self.jobs]
            if any(need not in self.outcomes for need in ours):
                rest.append(job)
            elif any(self.outcomes[need].status != "done" for need in ours):
                self.record(Outcome(job.key, "skipped", NEEDS_MODEL))
            elif (claim := self.shared.take(job) if self.shared else True) is True:
                choice = job
                rest += self.waiting[place + 1 :]
                break
            elif isinstance(claim, Outcome):
                self.record(claim, ours=False)
            else:
                self.elsewhere[job.key] = job
        self.waiting = rest
        return choice


def unable(outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """Messages of the jobs that could not be done, by key."""
    return {o.key: o.message for o in outcomes if o.status in {"failed", "skipped", "storage"}}
