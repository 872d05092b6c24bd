"""Positive controls before all else: where no attack succeeds there, hours more say nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from fedaudit.core.trial import POSITIVE
from fedaudit.study.jobs import AttackJob, Job
from fedaudit.study.session import Opened


def controls_first(parts: Iterable[Opened], hopeless: Callable[[], str]) -> Iterator[Opened]:
    """The parts of a study, its positive controls apart and first.

    Args:
        parts: Of `sequential_parts.parts_of`; all positive controls are in the first.
        hopeless: Asked once they are done; where it gives a reason, nothing comes after them.
    """
    for number, part in enumerate(parts):
        if number:
            yield part
            continue
        first = tuple(job for job in part.todo if _is_control(job))
        yield replace(part, todo=first)
        if hopeless():
            return
        yield replace(part, todo=tuple(job for job in part.todo if not _is_control(job)))


def _is_control(job: Job) -> bool:
    return isinstance(job, AttackJob) and job.cell.role in POSITIVE
