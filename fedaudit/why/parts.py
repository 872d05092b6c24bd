"""The parts of an explanation: what each measures, done by the study's executor, and its summary.

DIR/                    a run folder; what `fedaudit run` keeps may stand beside it
├── models/             the federation after the rounds that were needed
├── measurements/       one attacked observation each
├── evidence/           pictures, under full evidence only
├── why.json            the explanation, which `results.json` holds from the next report on
└── why.html            its page
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fedaudit.captures.simulate.study_faces import faces_of
from fedaudit.core.errors import AttackError, ConfigError, FedauditError
from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.threat_models import threat_model
from fedaudit.core.version import VERSION
from fedaudit.data.provenance import facts
from fedaudit.files.atomic import write_atomically
from fedaudit.reports import explanation_page
from fedaudit.reports.explanation import FILE, PARTS, SCHEMA_VERSION, Explanation, Origin, Part
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.study import session
from fedaudit.study.executors.choice import Place
from fedaudit.study.jobs import Job, TrainJob
from fedaudit.study.run_cell import run_train
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.scheduler import Event
from fedaudit.why import artifacts, clients, layers, regions, rounds
from fedaudit.why.explained_scenario import REFUSALS, Measurement, Subject, training_job
from fedaudit.why.prepare_subject import prepare, scenario_of

Watch = Callable[[Sequence[Job], int], AbstractContextManager[Callable[[Event], None]]]
"""Of jobs and the number of workers: shows how they go."""


@dataclass(frozen=True)
class Options:
    """What an explanation measures, and where it runs.

    Attributes:
        parts: What to measure; the others are said not to have been tested.
        targets: Attacked updates a setting.
        seed: Of captures, attacks and orders.
        rounds: Audited rounds of the part "rounds".
        pairs: Pairs of orders of the part "clients".
        evidence: "full" keeps originals and reconstructions and shows them.
        command: How to do it again, for the page.
        place: Where measurements are made.
    """

    parts: tuple[Part, ...] = PARTS
    targets: int = 4
    seed: int = 0
    rounds: tuple[int, ...] = rounds.ROUNDS
    pairs: int = clients.PAIRS
    evidence: Evidence = "redacted"
    command: str = ""
    place: Place = field(default_factory=Place)


@contextmanager
def _no_watch(_: Sequence[Job], __: int) -> Iterator[Callable[[Event], None]]:
    yield lambda event: None


def explain(
    study: Study,
    scenario_name: str | None,
    path: Path,
    options: Options,
    watch: Watch = _no_watch,
) -> Explanation:
    """Measure what was not measured before, and write `why.json` and `why.html` into a run folder.

    Raises:
        UnknownNameError: No such scenario.
        ConfigError: The scenario has no attack on an honest server, or an option makes no sense.
        KnowledgeError: An attack needs a fact that the scenario's threat model does not grant.
        RunFolderError: The folder holds another study, or other files.
        FedauditError: A measurement failed in a way that says nothing about the study.
    """
    scenario = scenario_of(study, scenario_name)
    if options.targets < 2:
        raise ConfigError("one target has no interval: ask for 2 targets or more (4 and up are)")
    with session.open_run(path, study, command=options.command, retry_failed=True) as workspace:
        subject = prepare(
            study, scenario, workspace.folder, targets=options.targets, seed=options.seed
        )
        do = partial(_do, workspace, subject, options, watch)
        do(_training(subject, options))
        if errors := do(_measurements(subject, options)):
            key, message = next(iter(errors.items()))
            raise FedauditError(
                f"{len(errors)} measurements failed, {key}: {message}\nWhat was finished is kept; "
                "the same command tries the others again."
            )
        explanation = _explanation(subject, options)
        write_atomically(path / FILE, canonical_bytes(explanation))
        consent_only = options.evidence == "full" and workspace.folder.recipients
        evidence = "redacted" if consent_only else options.evidence
        pictures = regions.faces(subject) if evidence == "full" else []
        page = explanation_page.render(explanation, evidence, pictures)
        write_atomically(path / "why.html", page.encode())
        session.record_hashes(workspace, {FILE, "why.html"})
    return explanation


@dataclass(frozen=True)
class Work:
    """Does one job of an explanation in a worker, and leaves the result in the run folder."""

    study: Study
    scenario: Scenario
    folder: RunFolder
    targets: int
    seed: int

    @cached_property
    def subject(self) -> Subject:
        """The subject of this worker, made once."""
        return prepare(self.study, self.scenario, self.folder, targets=self.targets, seed=self.seed)

    def __call__(self, job: TrainJob | Measurement[Any]) -> None:
        """Measure one job and keep its value in the run folder."""
        if isinstance(job, TrainJob):
            run_train(self.study, job, self.folder)
        else:
            with suppress(AttackError):  # a refusal, which was kept
                self.subject.get(job)


def _do(
    workspace: session.Opened, subject: Subject, options: Options, watch: Watch, jobs: Sequence[Job]
) -> Mapping[str, str]:
    """Do what is not done yet, and return by key why jobs failed."""
    distinct = tuple({job.key: job for job in jobs}.values())
    part = session.opened_for(workspace, distinct)
    work = Work(subject.study, subject.scenario, subject.folder, subject.targets, subject.seed)
    executor = options.place.make()
    with watch(part.todo, executor.slots) as on_event:
        outcomes = session.run(part, executor=executor, on_event=on_event, work=work)
    return session.failures(part, outcomes)


def _training(subject: Subject, options: Options) -> list[Job]:
    """The models that the parts attack."""
    numbers = {subject.scenario.round} if set(options.parts) - {"rounds"} else set()
    numbers |= set(options.rounds) if "rounds" in options.parts else set()
    jobs = (training_job(subject.study, subject.scenario, n) for n in sorted(numbers))
    return [job for job in jobs if job]


@dataclass(frozen=True)
class _Part:
    measurements: Callable[[Subject], Sequence[Measurement[Any]]]
    explain: Callable[[Subject], Any]


def _parts(options: Options) -> dict[Part, _Part]:
    """Those that are asked for."""
    rising = tuple(sorted(set(options.rounds)))
    parts: dict[Part, tuple[Any, dict[str, Any]]] = {
        "layers": (layers, {}),
        "rounds": (rounds, {"rounds": rising}),
        "regions": (regions, {"keep_faces": options.evidence == "full"}),
        "artifacts": (artifacts, {}),
        "clients": (clients, {"pairs": options.pairs}),
    }
    return {
        name: _Part(partial(part.measurements, **settings), partial(part.explain, **settings))
        for name, (part, settings) in parts.items()
        if name in options.parts
    }


def _measurements(subject: Subject, options: Options) -> list[Job]:
    """Of all parts; one that cannot be measured says why when it is summarized."""
    jobs: list[Job] = []
    for part in _parts(options).values():
        with suppress(*REFUSALS):
            jobs += part.measurements(subject)
    return jobs


def _explanation(subject: Subject, options: Options) -> Explanation:
    notes: list[str] = []
    if subject.gallery is None:
        notes.append("Identity was not tested: no face embedder, or a data set without identities.")
    summaries: dict[Part, Any] = dict.fromkeys(PARTS)
    for name, part in _parts(options).items():
        try:
            summaries[name] = part.explain(subject)
        except REFUSALS as error:
            notes.append(f"{name}: not tested: {error}")
    scenario, study = subject.scenario, subject.study
    where = facts(faces_of(study))
    return Explanation(
        schema_version=SCHEMA_VERSION,
        study=study.name,
        scenario=scenario.name,
        network=scenario.network.label,
        method=scenario.method.label,
        defense=scenario.defenses[0].label,
        round=scenario.round,
        batch_size=scenario.batch_size,
        image_size=study.size,
        threat_model=threat_model(scenario.threat_model, scenario.grant, scenario.deny).name,
        attacks=tuple(subject.attacks),
        skipped=subject.skipped,
        targets=options.targets,
        seed=options.seed,
        **summaries,
        notes=tuple(notes),
        source=Origin(
            fedaudit=VERSION,
            command=options.command,
            git_commit=where["git_commit"],
            versions=where["versions"],
            hashes=where["hashes"],
            terms=where["terms"],
        ),
    )
