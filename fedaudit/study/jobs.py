"""A study as a list of jobs: models to train, cells to attack, trainings to watch."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

from fedaudit.core.scenario import Choice, Federation, Scenario, Study, keys_of
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import HALVED_TARGETS, NOISE_TARGETS, POSITIVE, Cell, Role
from fedaudit.study.executors.pool import Task
from fedaudit.study.run_folder import CELLS, MEASUREMENTS, MODELS
from fedaudit.study.study_file import canonical

NOISE = "noise"
"""Name of the "attack" of the noise control: random images."""


@dataclass(frozen=True)
class TrainJob:
    """Train a federation from a fresh model for `rounds` rounds.

    It does not depend on a scenario, and labels play no part: what several scenarios need is
    trained once.
    """

    network: Choice
    method: Choice
    defense: Choice
    rounds: int
    seed: int
    federation: Federation
    kind: ClassVar[str] = MODELS

    @property
    def key(self) -> str:
        """A safe file name, unique within a study."""
        choices = (self.network, self.method, self.defense)
        settings = canonical(
            {
                "of": [[c.name, dict(c.settings)] for c in choices],
                "federation": keys_of(self.federation),
            }
        )
        names = [re.sub(r"[^A-Za-z0-9]+", "_", c.name)[-48:] for c in choices]
        mark = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return "--".join((*names, f"r{self.rounds:03d}", f"s{self.seed}", mark))

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the jobs that must be done before."""
        return ()

    @property
    def group(self) -> str:
        """Jobs of one group take about equally long."""
        return f"train {self.network.name} {self.method.name} {self.defense.name} {self.rounds}"


@dataclass(frozen=True)
class AttackJob:
    """Attack one target: one cell of the study.

    Attributes:
        needs: Keys of the training jobs that make the audited model.
    """

    cell: Cell
    needs: tuple[str, ...] = ()
    kind: ClassVar[str] = CELLS

    @property
    def key(self) -> str:
        """The cell's key."""
        return self.cell.key

    @property
    def group(self) -> str:
        """Jobs of one group take about equally long."""
        half = " by half" if self.cell.role == "half_steps" else ""
        return f"{self.cell.scenario} {self.cell.attack}{half}"


@dataclass(frozen=True)
class FederationJob:
    """Train a defense's federation once more, and watch all of its rounds.

    Attributes:
        asks: What for, and the beginning of its key.
        scenario, defense: By their labels in the study.
    """

    asks: Literal["inference", "canaries"]
    scenario: str
    defense: str
    kind: ClassVar[str] = MEASUREMENTS

    @property
    def key(self) -> str:
        """A safe file name, unique within a study."""
        mark = hashlib.sha256(self.defense.encode()).hexdigest()[:8]
        name = re.sub(r"[^A-Za-z0-9]+", "_", self.defense)[-48:]
        return "--".join((self.asks, self.scenario, name, mark))

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the jobs that must be done before."""
        return ()

    @property
    def group(self) -> str:
        """Jobs of one group take about equally long."""
        return f"{self.asks} {self.scenario}"


class Job(Task, Protocol):
    """What a run folder must know of a job: a study's own, or one that explains it.

    Its key is a safe file name; `kind` is the folder of its record.
    """

    kind: ClassVar[str]

    @property
    def group(self) -> str:
        """Jobs of one group take about equally long."""
        ...


def expand(study: Study) -> tuple[TrainJob | AttackJob | FederationJob, ...]:
    """Every job of a study, in the order in which to start them.

    Models that cells wait for come first, then models that only measure utility, then cells, those
    of the first target first: a run that is interrupted has something of everything.
    """
    cells = (*_positives(study), *_cells(study))
    models = {job.key: job for job in _models(study)}
    return (*models.values(), *cells, *federation_jobs(study))


def federation_jobs(study: Study) -> tuple[FederationJob, ...]:
    """Jobs that watch whole trainings: one for each defense of each scenario."""
    kinds: tuple[tuple[Literal["inference", "canaries"], bool], ...] = (
        ("inference", study.inference),
        ("canaries", study.canaries > 0),
    )
    return tuple(
        FederationJob(asks, scenario.name, defense.label)
        for asks, due in kinds
        if due
        for scenario in study.scenarios
        for defense in scenario.defenses
    )


def utility_jobs(study: Study, scenario: Scenario, defense: Choice) -> tuple[TrainJob, ...]:
    """The training jobs that measure a defense's utility: one a seed."""
    first = _train(study, scenario, defense, study.federation_of(scenario).rounds)
    return tuple(replace(first, seed=first.seed + k) for k in range(study.utility_seeds))


def central_jobs(study: Study, scenario: Scenario) -> tuple[TrainJob, ...]:
    """Jobs that train one central model on everybody's photos, in as many steps."""
    federation = study.federation_of(scenario)
    training = federation.training
    alone = federation.partition == "people"
    one = replace(
        federation,
        clients=1,
        partition="people",
        identities=federation.identities * (federation.clients if alone else 1),
        training=replace(training, steps=training.steps * federation.clients),
    )
    central = replace(scenario, method=Choice("fedavg"), federation=one)
    return utility_jobs(study, central, Choice("none"))


def model_job(study: Study, scenario: Scenario, defense: Choice) -> TrainJob | None:
    """The training job whose model the audited client receives.

    None if that is a fresh one, or was recorded.

    All seeds of a study share it: they vary the targets' and the attacks' randomness.
    """
    if scenario.round == 1 or not study.trains:
        return None
    return _train(study, scenario, defense, scenario.round - 1)


def gallery_name(study: Study, federation: Federation, judge: str = "") -> str:
    """What the run folder calls the gallery of the photos that do not train in this federation.

    Nothing else decides it: however training photos are dealt, the others are the gallery. `judge`
    is the label of one beside the first, who has the same photos.
    """
    same = federation.photos == study.federation.photos
    name = "gallery" if same else f"gallery-{federation.photos}"
    return f"{name}--{judge}" if judge else name


def _train(study: Study, scenario: Scenario, defense: Choice, rounds: int) -> TrainJob:
    choices = (scenario.network, scenario.method, defense)
    bare = [Choice(c.name, c.settings) for c in choices]  # two labels, one training
    federation = study.federation_of(scenario)
    return TrainJob(bare[0], bare[1], bare[2], rounds, study.seeds[0], federation)


def _models(study: Study) -> Iterator[TrainJob]:
    rows = [(scenario, defense) for scenario in study.scenarios for defense in scenario.defenses]
    for scenario, defense in rows:
        if job := model_job(study, scenario, defense):
            yield job
    if study.utility:
        mine = [s for s in study.scenarios if any(d.name != "none" for d in s.defenses)]
        for scenario in mine:
            for defense in scenario.defenses:
                yield from utility_jobs(study, scenario, defense)
        for scenario in mine:
            yield from central_jobs(study, scenario)


def _cells(study: Study) -> Iterator[AttackJob]:
    grids = [(scenario, _grid(study, scenario)) for scenario in study.scenarios]
    for target in range(max((s.targets for s in study.scenarios), default=0)):
        for seed in study.seeds:
            for scenario, jobs in grids:
                if target < scenario.targets:
                    for job in jobs:
                        if _wanted(job, target, seed, study.seeds[0]):
                            yield replace(job, cell=replace(job.cell, target=target, seed=seed))


def _grid(study: Study, scenario: Scenario) -> tuple[AttackJob, ...]:
    """The jobs of one target and seed."""
    audits = [
        _job(study, scenario, defense, attack.label, "audit")
        for defense in scenario.defenses
        for attack in scenario.attacks
    ]
    if not scenario.controls:
        return tuple(audits)
    halves = [replace(job, cell=replace(job.cell, role="half_steps")) for job in audits]
    controls = [
        _job(study, scenario, defense, attack.label, "prior_only")
        for defense in scenario.defenses
        for attack in scenario.attacks
    ]
    first = scenario.defenses[0]
    noise = [_job(study, scenario, first, a.label, "update_noise") for a in scenario.attacks]
    return (*audits, *halves, *controls, *noise, _job(study, scenario, first, NOISE, "noise"))


def _wanted(job: AttackJob, target: int, seed: int, first: int) -> bool:
    """Whether this job is run on a target under a seed; some controls need few of them."""
    match job.cell.role:
        case "noise":
            return seed == first
        case "update_noise":
            return seed == first and target < NOISE_TARGETS
        case "half_steps":
            return seed == first and target < HALVED_TARGETS
        case _:
            return True


def _positives(study: Study) -> Iterator[AttackJob]:
    """A positive control of the study's own, from what the server sent in its first scenario."""
    if not study.positives:
        return
    scenario = study.scenarios[0]
    for number in range(study.positives):
        for attack in scenario.attacks:
            for role in POSITIVE:
                job = _job(study, scenario, scenario.defenses[0], attack.label, role)
                yield replace(job, cell=replace(job.cell, target=number))


def _job(study: Study, scenario: Scenario, defense: Choice, attack: str, role: Role) -> AttackJob:
    """The job of the first target and seed."""
    cell = Cell(
        scenario=scenario.name,
        network=scenario.network.label,
        method=scenario.method.label,
        round=scenario.round,
        batch_size=scenario.batch_size,
        defense=defense.label,
        attack=attack,
        threat_model=threat_model(scenario.threat_model, scenario.grant, scenario.deny).name,
        target=0,
        seed=study.seeds[0],
        role=role,
    )
    model = model_job(study, scenario, defense)
    return AttackJob(cell, (model.key,) if model else ())
