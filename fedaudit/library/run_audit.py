"""Run a study from Python, as `fedaudit run` does, without a terminal."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
from fedaudit.library.run_tables import Run, load
from fedaudit.reports.build import build_report
from fedaudit.reports.interim_analysis import decided
from fedaudit.study.execution import Note, execution
from fedaudit.study.executors.choice import Name, Place
from fedaudit.study.scheduler import Event
from fedaudit.study.study_check import check_study
from fedaudit.study.study_file import load_study


def audit(
    study: str | os.PathLike[str] | Study,
    *,
    output: str | os.PathLike[str],
    evidence: Evidence | None = None,
    workers: int | None = None,
    device: str = "cpu",
    executor: Name = "processes",
    address: str | None = None,
    cell_timeout: float | None = None,
    retry_failed: bool = False,
    budget: float | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    note: Note = lambda message: None,
) -> Run:
    """Run a study, or go on with one, and write `results.json` and `report.html`.

    The same as `fedaudit run STUDY --output OUTPUT`; nothing is printed. Workers are processes: a
    script calls this below `if __name__ == "__main__":`.

    Args:
        study: A TOML file, or a study as `fedaudit.study.study_file.load_study` reads one.
        output: The run folder; what is finished in it is not computed again.
        evidence: What the report shows of faces: "none", "redacted" or "full". Only "full" keeps
            the originals. None goes on as begun, or begins "redacted".
        workers: Cells at once; by default as many as CPU cores, and 1 on another device.
        device: Where attacks compute; a torch device.
        executor: "in-process", "processes" of this machine, "ray" or "slurm".
        address: Of a running Ray cluster; None starts one on this machine.
        cell_timeout: Seconds after which a cell is ended, and has failed; None for no limit.
        retry_failed: Try again what failed before.
        budget: Seconds after which no further job begins; what there is is concluded from.
        on_event: Called in this process as jobs start and finish.
        note: Takes what a user should know while it runs, a sentence each.

    Returns:
        The run: its results, rows and trials. A job that failed is in `Run.failed`; its cells are
        "not tested".

    Raises:
        UsageError: The study says something that does not exist, or torch has no such device.
        RunFolderError: The folder holds something else.
        AssetError: Something that every job needs is neither cached nor fetchable.
        StorageError: The folder cannot be written; what was finished is kept.

    Example:
        >>> import fedaudit
        >>> run = fedaudit.audit("study.toml", output="runs/first")  # doctest: +SKIP
        >>> run.results.headline.kind  # doctest: +SKIP
        'LEAK DEMONSTRATED'
    """
    if isinstance(study, Study):
        check_study(study)
        plan, name = study, study.name
    else:
        plan, name = load_study(Path(study)), os.fspath(study)
    folder = Path(output)
    with execution(
        plan,
        folder,
        command=f"fedaudit.audit({name!r}, output={os.fspath(output)!r})",
        evidence=evidence,
        place=Place(executor, workers, device, limit=cell_timeout, address=address),
        retry_failed=retry_failed,
        budget=budget,
        look=decided,
        watch=lambda workspace: nullcontext(on_event),
        note=note,
    ) as outcome:
        build_report(folder, outcome.evidence)
    return load(folder)
