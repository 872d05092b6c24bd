"""The study's faces, how they are split, and who judges identity: made once a study and worker."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from fedaudit.captures import targets
from fedaudit.captures.canary import rgb
from fedaudit.config import Federation, Scenario, Study
from fedaudit.data.faces import FaceSet
from fedaudit.data.splits import Split, split
from fedaudit.errors import AssetError
from fedaudit.registry import create
from fedaudit.running.folder import RunFolder
from fedaudit.running.jobs import gallery_name
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import Embed, Gallery, calibrate, embed_split, mirrored

T = TypeVar("T")

FULL_SIZE = 112
"""Pixels of gallery photos, whatever the study's size: an adversary's photos are not small."""


def faces_of(study: Study) -> FaceSet:
    """The study's face set at its size."""
    return _faces(study)[0]


def judge_of(
    study: Study, folder: RunFolder, scenario: Scenario
) -> tuple[Gallery | None, Embed | None]:
    """The gallery and the embedder that judge identity; None each where there are none."""
    return _gallery(study, folder, study.federation_of(scenario))


@dataclass
class _Latest(Generic[T]):
    """The last study's value. Studies hold mappings and cannot be hashed, so no `lru_cache`."""

    study: Study | None = None
    value: T | None = None

    def get(self, study: Study, make: Callable[[], T]) -> T:
        if self.value is None or self.study != study:
            self.study, self.value = study, make()
        return self.value


_FACES: _Latest[tuple[FaceSet, FaceSet]] = _Latest()
_SPLITS: _Latest[dict[Federation, Split]] = _Latest()
_GALLERIES: _Latest[dict[str, tuple[Gallery | None, Embed | None]]] = _Latest()


def split_of(study: Study, federation: Federation) -> Split:
    """Who trains and which photos are the gallery, in this federation on the study's faces."""
    splits = _SPLITS.get(study, dict)
    if federation not in splits:
        splits[federation] = split(faces_of(study), federation)
    return splits[federation]


def _faces(study: Study) -> tuple[FaceSet, FaceSet]:
    def make() -> tuple[FaceSet, FaceSet]:
        settings = dict(study.data.settings)
        faces: FaceSet = create("data", study.data.name, {**settings, "size": study.size})
        full: FaceSet = create("data", study.data.name, {**settings, "size": FULL_SIZE})
        return faces, full

    return _FACES.get(study, make)


def _gallery(
    study: Study, folder: RunFolder, federation: Federation
) -> tuple[Gallery | None, Embed | None]:
    name = gallery_name(study, federation)

    def make() -> tuple[Gallery | None, Embed | None]:
        if study.recorded and not study.data.settings["gallery"]:
            return None, None
        if not study.recorded and not faces_of(study).has_identities:
            return None, None
        try:
            embed = mirrored(load_embedder().embed)
        except AssetError:
            return None, None  # the report says that identity was not tested

        def embeddings() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            if study.recorded:
                return targets.gallery_of(study, FULL_SIZE, embed)
            faces, full = _faces(study)
            return embed_split(full, faces, split_of(study, federation), embed)

        references, probes = _embeddings(folder, name, embeddings)
        photos = sum(map(len, references.values()))
        made = calibrate(references, probes, fmr=study.fmr, photos=photos)
        return made, lambda images: embed(rgb(images))

    galleries = _GALLERIES.get(study, dict)
    if name not in galleries:
        galleries[name] = make()
    return galleries[name]


def _embeddings(
    folder: RunFolder, name: str, make: Callable[[], tuple[dict[str, Tensor], dict[str, Tensor]]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gallery's embeddings, computed once a run folder: they take seconds a worker."""
    kept = folder.shared_tensors(name)
    if kept is None:
        references, probes = make()
        kept = {f"reference/{p}": e for p, e in references.items()}
        kept |= {f"probe/{p}": e for p, e in probes.items()}
        folder.save_shared_tensors(name, kept)
    parts: dict[str, dict[str, Tensor]] = {"reference": {}, "probe": {}}
    for key, value in kept.items():
        kind, _, person = key.partition("/")
        parts[kind][person] = value
    return parts["reference"], parts["probe"]
