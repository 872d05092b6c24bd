"""A study in the parts between two looks at it: what is decided is attacked no more.

Which targets a part has depends on the results until the look before it alone, which lie in the run
folder. So a run that goes on, several at once, and every executor come to the same cells.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from fedaudit.core.trial import POSITIVE
from fedaudit.stats.sequential import looks
from fedaudit.study.jobs import AttackJob, Job
from fedaudit.study.scheduler import NEEDS_MODEL, unable
from fedaudit.study.session import Opened
from fedaudit.study.worker import Outcome

Decided = Callable[[], Collection[tuple[str, str]]]
"""Scenarios and labels of the defenses that are decided by now."""


def parts_of(opened: Opened, decided: Decided) -> Iterator[Opened]:
    """The same folder with the jobs until the first look, until the second, and so on.

    Of a study that is not sequential there is one part. Each must have been run when the next one
    is asked for. What was decided and is no more, as p-values of other rows changed, goes on last.

    Args:
        opened: The folder; jobs that it needs done and that have failed are not in any part.
        decided: Called between two parts.
    """
    study = opened.manifest.study
    if not study.sequential:
        yield opened
        return
    of = {scenario.name: looks(scenario.targets) for scenario in study.scenarios}
    begun: set[str] = set()
    over: Collection[tuple[str, str]] = ()
    number, last = 0, max(map(len, of.values()))
    while True:
        look = min(number, last - 1)
        jobs = tuple(j for j in opened.todo if j.key not in begun and _wanted(j, look, of, over))
        if jobs or number == 0:
            begun |= {job.key for job in jobs}
            yield replace(opened, todo=jobs)
            over = decided()
        elif (
            number >= last
        ):  # corrected for more rows, one that was decided may need more after all
            return
        number += 1


def _wanted(
    job: Job, look: int, of: dict[str, tuple[int, ...]], over: Collection[tuple[str, str]]
) -> bool:
    """Whether a job is needed until a look; all but attacks are from the first."""
    if not isinstance(job, AttackJob) or job.cell.role in POSITIVE:
        return True
    cell = job.cell
    counts = of[cell.scenario]
    until = counts[min(look, len(counts) - 1)]
    return cell.target < until and (cell.scenario, cell.defense) not in over


def without_lost(part: Opened, before: Sequence[Outcome]) -> tuple[Opened, tuple[Outcome, ...]]:
    """A part without the jobs that need one which failed in an earlier part, and their outcomes."""
    lost = unable(before)
    idle = tuple(job for job in part.todo if any(need in lost for need in job.needs))
    skipped = tuple(Outcome(job.key, "skipped", NEEDS_MODEL) for job in idle)
    return replace(part, todo=tuple(job for job in part.todo if job not in idle)), skipped
