"""What jobs took on this machine, so that the plan of a study can say what it will take.

The cache folder holds one small table: by a hash of what decides a job's cost (network, image size,
batch, local training, attack and its settings, defense, device) the mean seconds and the most
memory. Nothing of the data is in it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fedaudit.core.errors import FedauditError
from fedaudit.core.scenario import Choice, Study, keys_of
from fedaudit.files import regular_file
from fedaudit.files.asset_store import cache_dir
from fedaudit.files.atomic import write_atomically
from fedaudit.study.jobs import AttackJob, Job, TrainJob
from fedaudit.study.study_file import canonical
from fedaudit.study.worker import Outcome

MOST = 5000
"""Kinds of jobs that are remembered; the oldest are forgotten."""


@dataclass(frozen=True)
class Cost:
    """Of one kind of job.

    Attributes:
        seconds: Mean wall time.
        memory: The most bytes that a worker held that had done one; 0 where that is not known.
        jobs: How many were measured.
    """

    seconds: float
    memory: int
    jobs: int


def costs_file() -> Path:
    """Where they are kept."""
    return cache_dir() / "costs.json"


def kind_of(study: Study, job: Job, device: str) -> str:
    """Hash of what decides a job's cost; jobs that differ in target and seed have the same."""
    about: list[object] = [device, study.size, study.data.name, job.group]
    if isinstance(job, TrainJob):
        choices: tuple[Choice, ...] = (job.network, job.method, job.defense)
        about += [job.rounds, keys_of(job.federation)]
    elif isinstance(job, AttackJob):
        scenario = study.scenario(job.cell.scenario)
        named = [c for c in scenario.defenses if c.label == job.cell.defense]
        named += [c for c in scenario.attacks if c.label == job.cell.attack]
        choices = (scenario.network, scenario.method, *named)
        about = [*about[:3], scenario.batch_size, asdict(scenario.audited_training)]
        about += [scenario.rounds_seen, job.cell.role == "half_steps"]
    else:
        choices = ()
    about += [[choice.name, dict(choice.settings)] for choice in choices]
    return hashlib.sha256(canonical({"of": about}).encode()).hexdigest()[:20]


def read_costs() -> dict[str, Cost]:
    """What is known, the oldest first; empty where nothing is, or it cannot be read."""
    try:
        table = regular_file.read_json(costs_file())
        names = [field.name for field in fields(Cost)]
        return {kind: Cost(*(row[name] for name in names)) for kind, row in table.items()}
    except (OSError, FedauditError, AttributeError, KeyError, TypeError):
        return {}


def add_costs(study: Study, jobs: Iterable[Job], outcomes: Iterable[Outcome], device: str) -> None:
    """Remember what jobs took that this process had done; that it cannot be kept does no harm."""
    of = {job.key: job for job in jobs}
    table = read_costs()
    for outcome in outcomes:
        if outcome.status != "done" or outcome.seconds is None:
            continue
        kind = kind_of(study, of[outcome.key], device)
        old = table.pop(kind, Cost(0.0, 0, 0))
        count = old.jobs + 1
        seconds = old.seconds + (outcome.seconds - old.seconds) / count
        table[kind] = Cost(seconds, max(old.memory, outcome.memory), count)
    rows = {kind: asdict(cost) for kind, cost in list(table.items())[-MOST:]}
    with suppress(OSError, FedauditError):
        costs_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(costs_file(), json.dumps(rows).encode())


def known_costs(study: Study, jobs: Iterable[Job], device: str) -> Mapping[str, Cost]:
    """What is known of jobs, by their keys."""
    table = read_costs()
    known = ((job.key, table.get(kind_of(study, job, device))) for job in jobs) if table else ()
    return {key: cost for key, cost in known if cost}
