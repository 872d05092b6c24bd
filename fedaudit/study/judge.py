"""The study's faces, how they are split, and who judges identity: made once a study and worker."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fedaudit.captures.audit import recorded_targets
from fedaudit.captures.audit.canary import rgb
from fedaudit.core.errors import AssetError, StorageError
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation, Scenario, Study
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split, split
from fedaudit.files.cache import key_of, load_or_learn
from fedaudit.scoring.embedder import Embedder, load_embedder
from fedaudit.scoring.identity import Embed, Gallery, calibrate, embed_split, mirrored
from fedaudit.study.jobs import gallery_name
from fedaudit.study.run_folder import RunFolder

T = TypeVar("T")

FULL_SIZE = 112
"""Pixels of gallery photos, whatever the study's size: an adversary's photos are not small."""

VERSION = 1
"""Raise it whenever the same photos would now give another gallery."""


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
            embedder = load_embedder()
        except AssetError:
            return None, None  # the report says that identity was not tested
        embed = mirrored(embedder.embed)

        def embeddings() -> dict[str, Tensor]:
            if study.recorded:
                return _named(*recorded_targets.gallery_of(study, FULL_SIZE, embed))
            return _embedded(*_faces(study), split_of(study, federation), embedder)

        references, probes = _embeddings(folder, name, embeddings)
        photos = sum(map(len, references.values()))
        made = calibrate(references, probes, fmr=study.fmr, photos=photos)
        return made, lambda images: embed(rgb(images))

    galleries = _GALLERIES.get(study, dict)
    if name not in galleries:
        galleries[name] = make()
    return galleries[name]


def _embeddings(
    folder: RunFolder, name: str, make: Callable[[], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gallery's embeddings, computed once a run folder: they take seconds a worker."""
    kept = folder.shared_tensors(name)
    if kept is None:
        kept = make()
        folder.save_shared_tensors(name, kept)
    parts: dict[str, dict[str, Tensor]] = {"reference": {}, "probe": {}}
    for key, value in kept.items():
        kind, _, person = key.partition("/")
        parts[kind][person] = value
    return parts["reference"], parts["probe"]


def _embedded(faces: FaceSet, full: FaceSet, held: Split, embedder: Embedder) -> dict[str, Tensor]:
    """Everybody's embeddings. Those of public faces are kept in the user's cache for other runs.

    The templates of anybody else stay in the run folder.
    """

    def embed() -> dict[str, Tensor]:
        return _named(*embed_split(full, faces, held, mirrored(embedder.embed)))

    if not full.public:
        return embed()
    decisive = {**embedder.network.state_dict(), "full": full.images, "small": faces.images}
    facts = (full.people, sorted(held.gallery.items()), torch.get_num_threads())
    key = key_of(decisive, "gallery", VERSION, torch.__version__, *facts)
    try:
        return load_or_learn(key, embed, None)
    except StorageError:
        return embed()  # without a cache it takes longer, that is all


def _named(references: dict[str, Tensor], probes: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"reference/{p}": e for p, e in references.items()} | {
        f"probe/{p}": e for p, e in probes.items()
    }
