"""All parts of an explanation, each resumable, into `why.json` and `why.html`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from fedaudit.captures.simulate.study_faces import faces_of
from fedaudit.core.errors import AttackError, ConfigError, DataError
from fedaudit.core.measures import Evidence
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.threat_models import threat_model
from fedaudit.core.version import VERSION
from fedaudit.data.provenance import facts
from fedaudit.files.atomic import write_atomically
from fedaudit.files.lock import locked
from fedaudit.study.study_file import digest
from fedaudit.why import artifacts, clients, layers, regions, rounds, why_page
from fedaudit.why.explanation_results import (
    PARTS,
    SCHEMA_VERSION,
    Source,
    What,
    Why,
    canonical_bytes,
)
from fedaudit.why.pieces import Pieces
from fedaudit.why.subject import Subject, Tell, prepare, scenario_of

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to explain.

    Attributes:
        what: Parts to measure; the others are said not to have been tested.
        targets: Attacked updates a setting.
        seed: Of captures, attacks and orders.
        rounds: Audited rounds of the part "rounds".
        pairs: Pairs of orders of the part "clients".
        evidence: "full" keeps originals and reconstructions and shows them.
        command: How to do it again, for the page.
    """

    what: tuple[What, ...] = PARTS
    targets: int = 4
    seed: int = 0
    rounds: tuple[int, ...] = rounds.ROUNDS
    pairs: int = clients.PAIRS
    evidence: Evidence = "redacted"
    command: str = ""


def explain(
    study: Study, scenario_name: str | None, folder: Path, options: Options, tell: Tell
) -> Why:
    """Measure what was not measured before, and write `why.json` and `why.html` into `folder`.

    Raises:
        UnknownNameError: No such scenario.
        ConfigError: The scenario has no attack on an honest server, or an option makes no sense.
        KnowledgeError: An attack needs a fact that the scenario's threat model does not grant.
        RunFolderError: The folder answers another question.
    """
    scenario = scenario_of(study, scenario_name)
    if options.targets < 2:
        raise ConfigError("one target has no interval: ask for 2 targets or more (4 and up are)")
    pieces = Pieces(folder)
    pieces.open(_question(study, scenario, options))
    with locked(folder):
        subject = prepare(
            study, scenario, pieces, targets=options.targets, seed=options.seed, tell=tell
        )
        why = _measured(subject, options)
        write_atomically(folder / "why.json", canonical_bytes(why))
        faces = []
        if options.evidence == "full":
            kept = [subject.folder.shared_tensors(f"faces-{t:03d}") for t in range(options.targets)]
            faces = [tensors for tensors in kept if tensors is not None]
        html = why_page.render(why, options.evidence, faces)
        write_atomically(folder / "why.html", html.encode())
    return why


def _question(study: Study, scenario: Scenario, options: Options) -> dict[str, object]:
    """What decides the pieces; parts, rounds, pairs and evidence may change from call to call."""
    return {
        "version": VERSION,
        "schema": SCHEMA_VERSION,
        "study": digest(replace(study, scenarios=(scenario,))),
        "scenario": scenario.name,
        "seed": options.seed,
    }


def _measured(subject: Subject, options: Options) -> Why:
    notes: list[str] = []
    if subject.gallery is None:
        notes.append("Identity was not tested: no face embedder, or a data set without identities.")

    def part(name: What, measure: Callable[[], T]) -> T | None:
        if name not in options.what:
            return None
        try:
            return measure()
        except (AttackError, ConfigError, DataError) as error:
            notes.append(f"{name}: not tested: {error}")
            return None

    keep = options.evidence == "full"
    found = {
        "layers": part("layers", lambda: layers.explain(subject)),
        "rounds": part("rounds", lambda: rounds.explain(subject, _rising(options.rounds))),
        "regions": part("regions", lambda: regions.explain(subject, keep_faces=keep)),
        "artifacts": part("artifacts", lambda: artifacts.explain(subject)),
        "clients": part("clients", lambda: clients.explain(subject, pairs=options.pairs)),
    }
    scenario, study = subject.scenario, subject.study
    where = facts(faces_of(study))
    return Why(
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
        notes=tuple(notes),
        source=Source(
            fedaudit=VERSION,
            command=options.command,
            git_commit=where["git_commit"],
            versions=where["versions"],
            hashes=where["hashes"],
            terms=where["terms"],
        ),
        **found,  # type: ignore[arg-type]
    )


def _rising(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(numbers)))
