"""One execution of a study: what it needs is fetched, and its open jobs are done."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fedaudit.core.errors import AssetError, UsageError
from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Study
from fedaudit.files import asset_store
from fedaudit.study import session
from fedaudit.study.controls_first import controls_first
from fedaudit.study.deciding_files import judge_assets, needed_assets
from fedaudit.study.executors.choice import Place
from fedaudit.study.measured_costs import add_costs
from fedaudit.study.reach import faces_to_count, remarks
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.scheduler import Event
from fedaudit.study.sequential_parts import parts_of, without_lost
from fedaudit.study.sources import source_of
from fedaudit.study.worker import Outcome

Note = Callable[[str], None]
Look = Callable[[Path], Mapping[tuple[str, str], str]]
"""The decided defenses of a run folder, by scenario and label, and where they stopped, in words."""
Watch = Callable[[session.Opened], AbstractContextManager[Callable[[Event], None]]]


@dataclass(frozen=True)
class Finished:
    """How the jobs of a run ended.

    Attributes:
        evidence: What its report may show.
        jobs: How many it has.
        failed: Messages of those that failed, now or before, by key.
        left: How many were left undone, for the budget or as controls failed.
    """

    evidence: Evidence
    jobs: int
    failed: Mapping[str, str]
    left: int = 0


@contextmanager
def execution(
    study: Study,
    output: Path,
    *,
    command: str,
    evidence: Evidence | None,
    place: Place,
    watch: Watch,
    note: Note,
    look: Look,
    hopeless: Callable[[Path], str] | None = None,
    retry_failed: bool = False,
    budget: float | None = None,
) -> Iterator[Finished]:
    """Do what is not done yet of a study; the folder is open inside the block.

    Args:
        study: What to run.
        output: The run folder.
        command: How to give the same command again, for the record.
        evidence: What may be kept of the originals, as in `session.open_run`.
        place: Where jobs are done.
        watch: Surrounds the work, and takes its events.
        note: Takes what a user should know meanwhile, a sentence each.
        look: Looks at a sequential study, which attacks no more under a decided defense.
        hopeless: Says of the positive controls why nothing else need be done, "" where it is to be;
            None asks for all.
        retry_failed: Try again what failed before.
        budget: Seconds after which no further job begins; None for no limit.
    """
    if place.executor in {"in-process", "processes"}:
        check_device(place.device)
    executor = place.make()
    with session.open_run(
        output, study, command=command, evidence=evidence, retry_failed=retry_failed
    ) as workspace:
        for other in workspace.leases.others():
            note(f"note: {other} works in this folder, too; the cells are shared out")
        for message in workspace.inventory.damaged.values():
            note(f"note: {message}")
        if finished_jobs := len(workspace.inventory.done):
            note(f"{finished_jobs} of {len(workspace.jobs)} jobs were done before")
        if workspace.todo:
            _fetch(study, workspace.folder, note)
            for remark in remarks(study, faces_to_count(study, fetched=True)):
                note(f"note: {remark}")
        outcomes: list[Outcome] = []
        until = None if budget is None else time.monotonic() + budget
        parts = parts_of(workspace, partial(_decided, look, output, note, {}))
        reason = ""
        if hopeless:

            def ask() -> str:
                nonlocal reason
                reason = hopeless(output)
                return reason

            parts = controls_first(parts, ask)
        for part in parts:
            possible, idle = without_lost(part, outcomes)
            with watch(possible) as show:
                ended = session.run(
                    possible,
                    executor=executor,
                    on_event=show,
                    device=place.device,
                    budget=None if until is None else max(0.0, until - time.monotonic()),
                )
            add_costs(study, possible.todo, ended, place.device)
            outcomes += (*idle, *ended)
            if any(outcome.status == "left" for outcome in outcomes):
                break
        failures = session.failures(workspace, outcomes)
        left = sum(outcome.status == "left" for outcome in outcomes)
        if reason and (left := len(workspace.todo) - len(outcomes)):
            note(f"stopped: {reason}")
        yield Finished(workspace.manifest.evidence, len(workspace.jobs), failures, left)


def _decided(
    look: Look, output: Path, note: Note, told: dict[tuple[str, str], str]
) -> Collection[tuple[str, str]]:
    """Look at a run; what is newly decided is noted."""
    decided = look(output)
    for (scenario, defense), words in decided.items():
        if told.get((scenario, defense)) != words:
            note(f"{scenario}, {defense}: {words}")
    told.update(decided)
    return decided.keys()


def check_device(name: str) -> None:
    """Refuse a device that torch does not have, before anything runs.

    Raises:
        UsageError: No such device here.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        have = f"cuda (0 to {torch.cuda.device_count() - 1})" if torch.cuda.is_available() else ""
        raise UsageError(
            f"torch cannot compute on {name!r} here. This machine has: "
            f"{', '.join(filter(None, ['cpu', have]))}. Leave the device out for the CPU."
        ) from error


def _fetch(study: Study, folder: RunFolder, note: Note) -> None:
    """Fetch, before the workers start, what every job would wait for.

    Raises:
        AssetError: Something that no job can do without is neither cached nor fetchable; or a judge
            of what is finished, maybe on another machine: cells without it would undo that.
    """
    source = source_of(study, folder).facts()
    for name in needed_assets(study, source):
        asset_store.path(name, say=note)
    if not source.gallery:
        return
    for number, name in enumerate(judge_assets(study)):
        try:
            asset_store.path(name, say=note)
        except AssetError as error:
            if f"asset {name}" in folder.facts().hashes:
                raise AssetError(
                    f"what is finished in {str(folder.path)!r} was judged by {name}, which is "
                    "missing here; cells without its judgment would leave identity untested. "
                    f"`fedaudit assets fetch` here gets it; what is finished is kept: {error}"
                ) from error
            consequence = "one judge is missing" if number else "identity will not be tested"
            note(f"note: {consequence}: {error}")
