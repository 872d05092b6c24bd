"""Which source a study takes its captures from, and what that source says of them."""

from collections.abc import Mapping
from functools import cache, lru_cache, partial

from pydantic import TypeAdapter

from fedaudit.attacks.presets.published import departures
from fedaudit.captures.audit import recorded_people
from fedaudit.captures.audit.recorded_source import RecordedSource
from fedaudit.captures.simulate import study_faces
from fedaudit.captures.simulate.simulated_source import SimulatedSource
from fedaudit.core import registry
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.source import Source, SourceFacts
from fedaudit.federation.federation_state import State
from fedaudit.study.deciding_files import hashes
from fedaudit.study.jobs import model_job
from fedaudit.study.reach import faces_to_count, reaches
from fedaudit.study.run_folder import RunFolder


def source_of(study: Study, folder: RunFolder) -> Source:
    """The recorded run that the study names, or its simulated federation."""
    recording = study.recording
    if recording is not None:
        return RecordedSource(study, recording)
    return SimulatedSource(study, partial(_state, study, folder))


def names_of(study: Study) -> Mapping[str, str]:
    """Whom the pseudonyms of a study's people stand for; its photos are read."""
    if study.recording is not None:
        return recorded_people.names_of(study.recording)
    return study_faces.names_of(study)


def statements(study: Study, source: Source) -> dict[str, object]:
    """What `facts.json` holds: whence the captures are, and what their source says of them."""
    provenance = source.provenance()
    return {
        **provenance,
        "hashes": {**provenance["hashes"], **hashes(study, source.facts())},
        "notes": source.notes(),
        "limitations": _limitations(study, source),
        "source": _facts().dump_python(source.facts(), mode="json"),
        "units": _units(study),
    }


def _limitations(study: Study, source: Source) -> tuple[str, ...]:
    """Of the source, and in what the attacks are not those of their papers."""
    choices = {(one.name, repr(one.settings)): one for s in study.scenarios for one in s.attacks}
    sentences = []
    for one in choices.values():
        apart = departures(registry.lookup("attacks", one.name), one.settings)
        if apart:
            words = ", ".join(f"{name} = {a!r} (paper: {b!r})" for name, (a, b) in apart.items())
            sentences.append(f"{one.name} departs from its paper: {words}.")
    return (*source.limitations(), *sentences)


def _units(study: Study) -> dict[str, int]:
    """Most independent units that each scenario's data can give; {} of a recorded run."""
    faces = faces_to_count(study, fetched=True)
    return {} if faces is None else {one.scenario: one.most for one in reaches(study, faces)}


def read_statements(study: Study, folder: RunFolder) -> tuple[SourceFacts, tuple[str, ...]]:
    """What a run's source said of its captures, and their limitations.

    Where the run folder does not hold it (no cell is done, or an older version wrote it), the study
    decides it.
    """
    facts = folder.facts()
    if facts.source is not None:
        return facts.source, facts.limitations
    source = source_of(study, folder)
    return source.facts(), _limitations(study, source)


@cache
def _facts() -> TypeAdapter[SourceFacts]:
    return TypeAdapter(SourceFacts)


def _state(study: Study, folder: RunFolder, scenario: Scenario, defense: Choice) -> State | None:
    job = model_job(study, scenario, defense)
    return None if job is None else _load_state(folder, job.key)


@lru_cache(maxsize=4)
def _load_state(folder: RunFolder, key: str) -> State:
    return State.from_flat(folder.model(key))
