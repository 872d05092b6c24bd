"""A study as a list of jobs: models to train, and cells to attack."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol

from fedaudit.core.protocols import Defense
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Federation, Scenario, Study, keys_of
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import POSITIVE, Cell, Role
from fedaudit.defenses.chain import parts_of
from fedaudit.federation.abilities import Secures
from fedaudit.federation.together import photos_of
from fedaudit.study.executor import Doable
from fedaudit.study.run_folder import CELLS, MODELS
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
        return f"{self.cell.scenario} {self.cell.attack}"


class Job(Doable, Protocol):
    """What a run folder must know of a job: a study's own, or one that explains it.

    Its key is a safe file name; `kind` is the folder of its record.
    """

    kind: ClassVar[str]

    @property
    def group(self) -> str:
        """Jobs of one group take about equally long."""
        ...


def expand(study: Study) -> tuple[TrainJob | AttackJob, ...]:
    """Every job of a study, in the order in which to start them.

    Models that cells wait for come first, then models that only measure utility, then cells, those
    of the first target first: a run that is interrupted has something of everything.
    """
    cells = (*_positives(study), *_cells(study))
    trained = {job.key: job for job in _models(study)}
    return (*trained.values(), *cells)


def utility_job(study: Study, scenario: Scenario, defense: Choice) -> TrainJob:
    """The training job that measures a defense's utility."""
    return _train(study, scenario, defense, study.federation_of(scenario).rounds)


def model_job(study: Study, scenario: Scenario, defense: Choice) -> TrainJob | None:
    """The training job whose model the audited client receives.

    None if that is a fresh one, or was recorded.

    All seeds of a study share it: they vary the targets' and the attacks' randomness.
    """
    if scenario.round == 1 or not study.trains:
        return None
    return _train(study, scenario, defense, scenario.round - 1)


def gallery_name(study: Study, federation: Federation) -> str:
    """What the run folder calls the gallery of the photos that do not train in this federation.

    Nothing else decides it: however training photos are dealt, the others are the gallery.
    """
    same = federation.photos == study.federation.photos
    return "gallery" if same else f"gallery-{federation.photos}"


def _train(study: Study, scenario: Scenario, defense: Choice, rounds: int) -> TrainJob:
    choices = (scenario.network, scenario.method, defense)
    bare = [Choice(c.name, c.settings) for c in choices]  # two labels, one training
    federation = study.federation_of(scenario)
    return TrainJob(bare[0], bare[1], bare[2], rounds, study.seeds[0], federation)


def _models(study: Study) -> Iterator[TrainJob]:
    for scenario in study.scenarios:
        for defense in scenario.defenses:
            if job := model_job(study, scenario, defense):
                yield job
    if study.utility:
        for scenario in study.scenarios:
            for defense in scenario.defenses:
                yield utility_job(study, scenario, defense)


def _cells(study: Study) -> Iterator[AttackJob]:
    for target in range(max((s.targets for s in study.scenarios), default=0)):
        for seed in study.seeds:
            for scenario in study.scenarios:
                if target < scenario.targets:
                    yield from _cells_of(study, scenario, target, seed)


def _cells_of(study: Study, scenario: Scenario, target: int, seed: int) -> Iterator[AttackJob]:
    first = scenario.defenses[0]
    for defense in scenario.defenses:
        for attack in scenario.attacks:
            yield _job(study, scenario, defense, _Which(attack.label, target, seed, "audit"))
    if not scenario.controls:
        return
    # The prior-only control replaces the update, so the defense hardly matters: the first will do,
    # except where an attack has another number of images to return.
    own = [defense for defense in scenario.defenses[1:] if _adds(defense, scenario)]
    for defense in (first, *own):
        for attack in scenario.attacks:
            yield _job(study, scenario, defense, _Which(attack.label, target, seed, "prior_only"))
    if seed == study.seeds[0]:
        yield _job(study, scenario, first, _Which(NOISE, target, seed, "noise"))


def _adds(defense: Choice, scenario: Scenario) -> bool:
    """Whether this defense puts more photos behind what the server sees than the study asks for."""
    made: Defense = create("defenses", defense.name, defense.settings)
    summed = any(isinstance(part, Secures) for part in parts_of(made))
    return summed or photos_of(made, scenario.batch_size) > scenario.batch_size


def _positives(study: Study) -> Iterator[AttackJob]:
    """A positive control of the study's own, from what the server sent in its first scenario."""
    if not study.positives:
        return
    scenario = study.scenarios[0]
    for number in range(study.positives):
        for attack in scenario.attacks:
            for role in POSITIVE:
                which = _Which(attack.label, number, study.seeds[0], role)
                yield _job(study, replace(scenario, batch_size=1), scenario.defenses[0], which)


class _Which(NamedTuple):
    attack: str
    target: int
    seed: int
    role: Role


def _job(study: Study, scenario: Scenario, defense: Choice, which: _Which) -> AttackJob:
    cell = Cell(
        scenario=scenario.name,
        network=scenario.network.label,
        method=scenario.method.label,
        round=scenario.round,
        batch_size=scenario.batch_size,
        defense=defense.label,
        threat_model=threat_model(scenario.threat_model, scenario.grant, scenario.deny).name,
        **which._asdict(),
    )
    model = model_job(study, scenario, defense)
    return AttackJob(cell, (model.key,) if model else ())
