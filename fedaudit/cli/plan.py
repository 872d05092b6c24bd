"""The plan of a study that `--dry-run` prints."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fedaudit.cli.options import RunOptions
from fedaudit.core.errors import FedauditError
from fedaudit.core.scenario import Scenario, Study
from fedaudit.stats.sequential import looks
from fedaudit.study import session
from fedaudit.study.inventory import Inventory
from fedaudit.study.jobs import AttackJob, FederationJob, Job, TrainJob, expand
from fedaudit.study.measured_costs import Cost, known_costs
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.time_estimate import RemainingTime, duration_in_words

if TYPE_CHECKING:
    from fedaudit.study.pass_cost import PassCost
    from fedaudit.study.reach import Reach


def plan(study: Study, output: Path, options: RunOptions) -> str:
    """What would be run, as text."""
    from fedaudit.study.pass_cost import pass_costs, training_seconds  # noqa: PLC0415 - torch
    from fedaudit.study.reach import faces_to_count, reaches, remarks  # noqa: PLC0415 - torch
    from fedaudit.study.sources import source_of  # noqa: PLC0415 - imports torch

    workers = options.place.make().slots
    jobs = expand(study)
    stock = session.preview(output, study, options.evidence)
    over = set(stock.done) if stock else set()
    todo = [job for job in jobs if job.key not in over]
    models = [job for job in jobs if isinstance(job, TrainJob)]
    roles: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for job in jobs:
        if isinstance(job, AttackJob):
            roles[job.cell.scenario][job.cell.role] += 1
    lines = [f"study     {study.name}", f"output    {output} ({_state(stock)})"]
    if study.sequential:
        lines += [_looks(scenario) for scenario in study.scenarios]
    costs = tuple(pass_costs(study))
    lines += [_models(models, training_seconds(models, costs), study.size)] if models else []
    kinds = Counter(job.asks for job in jobs if isinstance(job, FederationJob))
    lines += [f"{asks:10}{count} federations to train and watch" for asks, count in kinds.items()]
    lines += [_scenario(study, scenario, roles[scenario.name]) for scenario in study.scenarios]
    faces = faces_to_count(study, fetched=False)
    if faces is not None:
        lines += [_reach(one) for one in reaches(study, faces)]
    lines += [_pass(one, study.size) for one in costs]
    notes = (*source_of(study, RunFolder(output)).notes(), *remarks(study, faces))
    lines += [f"note      {note}" for note in notes]
    lines += [f"jobs      {len(jobs)}, of which {len(todo)} are to do, on {workers} workers"]
    measured = known_costs(study, todo, options.place.device)
    lines += [f"time      {_time(RunFolder(output), jobs, todo, workers, measured)}"]
    lines += _memory(todo, workers, measured, options.place.resources.memory)
    return "\n".join(lines)


def _scenario(study: Study, scenario: Scenario, roles: Counter[str]) -> str:
    counts = {
        "defenses": len(scenario.defenses),
        "attacks": len(scenario.attacks),
        "targets": scenario.targets,
        "seeds": len(study.seeds),
    }
    product = " × ".join(f"{n} {name if n > 1 else name[:-1]}" for name, n in counts.items())
    audit = roles["audit"]
    controls = roles.total() - audit
    cells = f"{audit} cell{'s' * (audit != 1)}"
    return f"scenario  {scenario.name}: {product} = {cells}, and {controls} controls"


def _looks(scenario: Scenario) -> str:
    *early, last = looks(scenario.targets)
    after = f"{', '.join(map(str, early))} and {last}" if early else f"{last}"
    return f"looks     {scenario.name}: after {after} targets; what is decided ends there"


def _models(models: Sequence[TrainJob], seconds: float | None, size: int) -> str:
    if seconds is None:
        return f"models    {len(models)} to train"
    return (
        f"models    {len(models)} to train at {size} px: about {duration_in_words(seconds)} of a "
        "core, and what defenses add"
    )


def _pass(one: PassCost, size: int) -> str:
    photos = f"{one.images} photo{'s' * (one.images > 1)}"
    return (
        f"size      {one.scenario}: at {size} px a pass of {photos} takes {one.seconds:.2g} s of a "
        f"core and {one.megabytes:,.0f} MB; an attack makes one a step, or several"
    )


def _reach(one: Reach) -> str:
    return (
        f"settles   {one.scenario}: its targets are {one.counted} and exclude no rate "
        f"below {one.limit:.1%}; all its data give {one.most} and {one.best_limit:.1%}"
    ).replace("%", " %")


def _state(stock: Inventory | None) -> str:
    if stock is None:
        return "new"
    state = f"{len(stock.done)} done, {len(stock.missing)} missing"
    return state + (f", {len(stock.damaged)} damaged" if stock.damaged else "")


def _time(
    folder: RunFolder,
    jobs: tuple[Job, ...],
    todo: Sequence[Job],
    workers: int,
    costs: Mapping[str, Cost],
) -> str:
    """By what the folder's cells took, and otherwise by what such jobs took on this machine.

    A job whose like was measured counts by itself, as one defense's cells may cost a tenth of
    another's; others of its group count by the mean.
    """
    if not todo:
        return "none: everything is done"
    groups = {job.key: job.key if job.key in costs else job.group for job in todo}
    estimate, here = RemainingTime(groups, workers), set()
    for job in jobs:
        if job.key not in groups and isinstance(job, AttackJob):
            with suppress(FedauditError):
                estimate.seen(job.group, folder.trial(job.key).seconds)
                here.add(job.group)
    for job in todo:
        if job.key in costs:
            for group in {job.key, job.group} - here:
                estimate.seen(group, costs[job.key].seconds)
    measured = [job for job in todo if job.key in costs or job.group in here]
    attacks, known = (sum(isinstance(job, AttackJob) for job in of) for of in (todo, measured))
    seconds = estimate.left()
    # How long a training took says nothing of how long an attack takes, and few of many nothing.
    if seconds is None or 2 * known < attacks:
        return "no estimate before the first cells are done; the progress then shows one"
    by = f"{len(measured)} of {len(todo)} jobs are like ones that were measured here"
    more = "" if len(measured) == len(todo) else ", the others are taken to cost as much"
    return f"about {duration_in_words(seconds)}: {by}{more}"


def _memory(
    todo: Sequence[Job], workers: int, costs: Mapping[str, Cost], limit: int | None
) -> list[str]:
    """Memory by what workers held that did such jobs; nothing where none was measured."""
    held = max((costs[job.key].memory for job in todo if job.key in costs), default=0)
    if not held:
        return []
    beyond = ", which is more than --cell-memory allows" if limit and held > limit else ""
    all_of_them = held * min(workers, len(todo)) / 1e9
    return [
        f"memory    a worker held up to {held / 1e9:.2g} GB with such jobs here{beyond}; "
        f"{all_of_them:.2g} GB on all workers"
    ]
