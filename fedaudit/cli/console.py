"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere, or nothing."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from fedaudit.study.executor import Event
from fedaudit.study.jobs import Job
from fedaudit.study.time_estimate import Estimate, spoken

EVERY = 5.0
"""Seconds between two lines where there is no terminal."""

Show = Callable[[Event], None]


class Tally:
    """What is done, what failed, and how long the rest takes."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.total = len(jobs)
        self.done = self.failed = 0
        self.began = time.monotonic()
        self._told: set[str] = set()
        self._estimate = Estimate({job.key: job.group for job in jobs}, workers)

    def count(self, event: Event) -> str | None:
        """Count an event; what is worth a line of its own is returned."""
        if event.kind == "retried":
            return f"{event.key}: its worker process died; it is tried again"
        if event.outcome is None:
            return None
        fine = event.outcome.status == "done"
        self.done += 1
        self.failed += not fine
        self._estimate.finished(event.key, event.outcome.seconds if fine else None)
        if fine or event.outcome.message in self._told:  # one cause may fail every job
            return None
        self._told.add(event.outcome.message)
        return f"{event.key} {event.outcome.status}: {event.outcome.message}"

    @property
    def left(self) -> str:
        """Time left, in words."""
        if self.done == self.total:
            return ""
        seconds = self._estimate.left()
        return "" if seconds is None else f"about {spoken(seconds)} left"

    def line(self) -> str:
        """Everything in one line."""
        parts = [f"{self.done}/{self.total} done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{spoken(time.monotonic() - self.began)} elapsed"]
        parts += [self.left] if self.left else []
        return ", ".join(parts)


@contextlib.contextmanager
def progress(jobs: Sequence[Job], workers: int, *, quiet: bool = False) -> Iterator[Show]:
    """Show how jobs go; what it yields takes the executor's events.

    Args:
        jobs: What is to be done.
        workers: How many are done at once.
        quiet: Show failures only.
    """
    tally = Tally(jobs, workers)
    # rich heeds NO_COLOR, TERM=dumb and the like.
    console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
    if quiet or not jobs:
        yield lambda event: _tell(console, tally.count(event))
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bar(console, tally) as show:
            yield show
    else:
        yield _lines(console, tally)


@contextlib.contextmanager
def _bar(console: Console, tally: Tally) -> Iterator[Show]:
    columns = (
        TextColumn("auditing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=tally.total, left="")

        def show(event: Event) -> None:
            _tell(console, tally.count(event))
            failed = f"{tally.failed} failed " if tally.failed else ""
            bar.update(task, completed=tally.done, left=failed + tally.left)

        yield show


def _lines(console: Console, tally: Tally) -> Show:
    last = time.monotonic()

    def show(event: Event) -> None:
        nonlocal last
        _tell(console, tally.count(event))
        finished = event.kind == "finished" and tally.done == tally.total
        if finished or time.monotonic() - last >= EVERY:
            last = time.monotonic()
            _tell(console, tally.line())

    return show


def _tell(console: Console, line: str | None) -> None:
    if line:
        console.print(Text(line))
