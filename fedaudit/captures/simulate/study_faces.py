"""The face set of a simulated study and how its people are split: made once a study and worker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fedaudit.core.errors import ConfigError, StorageError
from fedaudit.core.registry import create
from fedaudit.core.scenario import COPY_JUDGE, Federation, Study
from fedaudit.core.source import FaceEmbedder
from fedaudit.data.face_set import FaceSet
from fedaudit.data.pseudonyms import hide_names, key_of_faces, nameless_errors, names_behind
from fedaudit.data.splits import Split, split
from fedaudit.files.cache import key_of, load_or_learn
from fedaudit.scoring.copies import nearest_photos
from fedaudit.scoring.copy_judge import embed_pictures
from fedaudit.scoring.identity import GALLERY_SIZE, embed_split, pack

T = TypeVar("T")

VERSION = 3
"""Raise it whenever the same photos would now give another gallery."""


@dataclass
class Latest(Generic[T]):
    """The last study's value. Studies hold mappings and cannot be hashed, so no `lru_cache`."""

    study: Study | None = None
    value: T | None = None

    def get(self, study: Study, make: Callable[[], T]) -> T:
        """The value of this study, made anew for another than the last."""
        if self.value is None or self.study != study:
            self.study, self.value = study, make()
        return self.value


_FACES: Latest[tuple[FaceSet, FaceSet]] = Latest()
_SPLITS: Latest[dict[Federation, Split]] = Latest()


def faces_of(study: Study) -> FaceSet:
    """The study's face set at its size; people whose faces are not public have pseudonyms."""
    return _faces(study)[0]


def split_of(study: Study, federation: Federation) -> Split:
    """Who trains and which photos are the gallery, in this federation on the study's faces."""
    splits = _SPLITS.get(study, dict)
    if federation not in splits:
        splits[federation] = split(faces_of(study), federation)
    return splits[federation]


def gallery_of(
    study: Study, federation: Federation, embedder: FaceEmbedder
) -> dict[str, Tensor] | None:
    """What identity and copies are judged by, as `fedaudit.scoring.identity.packed` makes it.

    None where nobody's name is known.
    """
    faces = faces_of(study)
    if faces.classes:
        return embed_pictures(faces, split_of(study, federation), embedder)
    if not faces.has_identities:
        return None
    return _embedded(*_faces(study), split_of(study, federation), embedder)


def names_of(study: Study) -> Mapping[str, str]:
    """Whom the pseudonyms of the study's people stand for; empty where they have their names.

    Of pictures that are no faces, the file of each image, or its number in an archive.
    """
    faces = _read(study, study.size)
    if faces.classes:
        return dict(zip(faces.people, faces.sources, strict=True))
    return {} if faces.public else names_behind(faces.people, key_of_faces(faces))


def require_fitting_judges(study: Study, *, of_pictures: bool) -> None:
    """Refuse judges of faces for pictures that are none, and the judge of copies for faces.

    Raises:
        ConfigError: Says what to remove.
    """
    if any((choice.name == COPY_JUDGE) != of_pictures for choice in study.judges):
        names = ", ".join(choice.name for choice in study.judges)
        raise ConfigError(
            f'the judges are {names}, and the data "{study.data.name}" '
            f"{'shows no faces' if of_pictures else 'shows faces'}: pictures that are no faces are "
            f'judged by "{COPY_JUDGE}", faces by the others. Remove judges.'
        )


def _faces(study: Study) -> tuple[FaceSet, FaceSet]:
    def make() -> tuple[FaceSet, FaceSet]:
        with nameless_errors():
            faces = _read(study, study.size)
            require_fitting_judges(study, of_pictures=bool(faces.classes))
            full = faces if faces.classes else _read(study, GALLERY_SIZE)
        if faces.public or faces.classes:
            return faces, full
        key = key_of_faces(faces)
        return hide_names(faces, key), hide_names(full, key)

    return _FACES.get(study, make)


def _read(study: Study, size: int) -> FaceSet:
    faces: FaceSet = create("data", study.data.name, {**study.data.settings, "size": size})
    return faces


def _embedded(
    faces: FaceSet, full: FaceSet, partition: Split, embedder: FaceEmbedder
) -> dict[str, Tensor]:
    """Everybody's embeddings, and how near photos come to each other.

    Those of public faces are kept in the user's cache for other runs.
    The templates of anybody else stay in the run folder.
    """

    def embed() -> dict[str, Tensor]:
        frame = embedder.frame(full.images)
        both = embed_split(full, faces, partition, embedder.within(frame))
        return pack(*both, nearest_photos(faces.images, faces.people), frame)

    if not full.public:
        return embed()
    decisive = {**embedder.network.state_dict(), "full": full.images, "small": faces.images}
    facts = (full.people, sorted(partition.gallery.items()), torch.get_num_threads())
    key = key_of(decisive, "gallery", VERSION, torch.__version__, *facts)
    try:
        return load_or_learn(key, embed, None, what="embeddings of public faces", valid=("frame",))
    except StorageError:
        return embed()  # without a cache it takes longer, that is all
