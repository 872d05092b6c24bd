"""The people whom the auditor of a recorded run brought along, and the pseudonyms for them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fedaudit.captures.audit.auditor_photos import Originals, originals
from fedaudit.core.capture import Secret
from fedaudit.core.recorded_run import RecordedRun, RecordedTarget
from fedaudit.data.pseudonyms import key_of_folders, names_behind, pseudonym


def key_of_run(run: RecordedRun) -> bytes:
    """Key of the pseudonyms of the people whom the auditor brought along."""
    truth = (path for target in run.targets for path in target.truth.values())
    return key_of_folders(*([run.gallery] if run.gallery else truth))


def names_of(run: RecordedRun) -> Mapping[str, str]:
    """Whom pseudonyms stand for: people of the gallery, and clients whose photos are known."""
    gallery = [f.name for f in Path(run.gallery).iterdir() if f.is_dir()] if run.gallery else []
    people = (person for target in run.targets for person in people_of(target))
    return names_behind([*gallery, *people], key_of_run(run))


def hide_names(secret: Secret, key: bytes) -> Secret:
    """The truth without anybody's name."""
    people = tuple(pseudonym(person, key) for person in secret.people)
    eligible = tuple(pseudonym(person, key) for person in secret.eligible)
    sources = tuple(map(str, range(len(people))))
    return replace(secret, people=people, eligible=eligible, sources=sources)


def photos_of(target: RecordedTarget) -> tuple[tuple[str, Originals], ...]:
    """Photos of the target's clients, as far as they are known."""
    truth = target.truth.items()
    return tuple((client, originals(Path(path), target.round)) for client, path in truth)


def people_of(target: RecordedTarget) -> Iterator[str]:
    """People on photos of the target's clients; the client's name where nobody says who it is."""
    for client, photos in photos_of(target):
        yield from (person or client for person in photos.people)
