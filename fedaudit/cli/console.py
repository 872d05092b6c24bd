"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere, or nothing."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from fedaudit.core.printable import printable
from fedaudit.study.jobs import Job
from fedaudit.study.scheduler import Event
from fedaudit.study.time_estimate import RemainingTime, duration_in_words

EVERY = 5.0
"""Seconds between two lines where there is no terminal."""

SETTLED = 5.0
"""Seconds after which a rate says something."""

Show = Callable[[Event], None]
Update = Callable[[float, str, str], None]


class Tally:
    """Counts of jobs that are done and failed, and the remaining time."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.total = len(jobs)
        self.done = self.failed = 0
        self.began = time.monotonic()
        self._elsewhere = False
        self._shown: set[str] = set()
        self._estimate = RemainingTime({job.key: job.group for job in jobs}, workers)

    def count(self, event: Event) -> str | None:
        """Count an event; what is worth a line of its own is returned."""
        if event.kind == "retried":
            return f"{event.key}: its worker process died; it is tried again"
        if event.outcome is None:
            return None
        fine = event.outcome.status == "done"
        self.done += 1
        self.failed += not fine
        self._elsewhere |= fine and event.outcome.seconds is None
        self._estimate.finished(event.key, event.outcome.seconds if fine else None)
        if fine or event.outcome.message in self._shown:  # one cause may fail every job
            return None
        self._shown.add(event.outcome.message)
        return f"{event.key} {event.outcome.status}: {event.outcome.message}"

    @property
    def left(self) -> str:
        """Time left, in words."""
        if self.done == self.total:
            return ""
        seconds = self._estimate.left()
        if self._elsewhere:  # how fast others are is seen by what gets done
            seconds = (time.monotonic() - self.began) / self.done * (self.total - self.done)
        return "" if seconds is None else f"about {duration_in_words(seconds)} left"

    @property
    def rate(self) -> str:
        """How many get done in a minute; "" before that can be said."""
        elapsed = time.monotonic() - self.began
        return f"{60 * self.done / elapsed:.2g} a minute" if self.done and elapsed > SETTLED else ""

    def line(self) -> str:
        """Everything in one line."""
        parts = [f"{self.done}/{self.total} done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{duration_in_words(time.monotonic() - self.began)} elapsed"]
        parts += filter(None, (self.rate, self.left))
        return ", ".join(parts)


@contextlib.contextmanager
def progress(jobs: Sequence[Job], workers: int, *, quiet: bool = False) -> Iterator[Show]:
    """Show how jobs go, or failures only; what it yields takes the executor's events."""
    tally, console = Tally(jobs, workers), stderr()
    with live(
        console, "auditing", len(jobs), quiet=quiet or not jobs, columns=(MofNCompleteColumn(),)
    ) as update:

        def show(event: Event) -> None:
            if line := tally.count(event):
                console.print(Text(printable(line)))
            prefix = f"{tally.failed} failed " if tally.failed else ""
            words = ", ".join(filter(None, (tally.rate, tally.left)))
            update(tally.done, prefix + words, tally.line())

        yield show


def stderr() -> Console:
    """The terminal for progress; rich heeds NO_COLOR, TERM=dumb and the like."""
    return Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def live(
    console: Console,
    title: str,
    total: float,
    *,
    quiet: bool = False,
    columns: Sequence[ProgressColumn] = (),
) -> Iterator[Update]:
    """A bar on a terminal, a line every few seconds elsewhere, or nothing.

    It yields a function of what is completed (of `total`), words behind the bar, and the line;
    `columns` stand between the bar and the time.
    """
    last, last_count = time.monotonic(), 0.0

    def print_line(count: float, words: str, line: str) -> None:
        nonlocal last, last_count
        del words
        if time.monotonic() - last >= EVERY or count >= total > last_count:
            last, last_count = time.monotonic(), count
            console.print(Text(printable(line)))

    if quiet:
        yield lambda count, words, line: None
    elif console.is_terminal and not console.is_dumb_terminal:
        words = TextColumn("{task.description}")
        with Progress(
            TextColumn(title), BarColumn(), *columns, TimeElapsedColumn(), words, console=console
        ) as bar:
            task = bar.add_task("", total=total)
            yield lambda count, words, line: bar.update(task, completed=count, description=words)
    else:
        yield print_line
