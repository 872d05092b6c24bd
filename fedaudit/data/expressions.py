"""Faces with expressions: invented ones that two classifiers agree on, or a user's own folders."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaudit.core.errors import DataError, UnknownNameError
from fedaudit.data.crop import resize
from fedaudit.data.face_set import FaceSet
from fedaudit.data.folder import folder
from fedaudit.data.synthetic import invented_people
from fedaudit.files.asset_table import ASSETS
from fedaudit.files.cache import key_of, load_or_learn
from fedaudit.models.expression_nets import EXPRESSIONS, load_expressions
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.generator import Generator, load_generator

VERSION = 1
"""Raise it whenever the same settings would now give other faces."""
CLASSES = ("happy", "neutral", "surprised")
_DRAW = 100
_MOST = 600
_TRIES = 4


def expressions(
    *,
    size: int = 64,
    people: int = 180,
    photos: int = 2,
    classes: Sequence[str] = CLASSES,
    confidence: float = 0.6,
    spread: float = 0.3,
    seed: int = 0,
) -> FaceSet:
    """Faces of invented people, each with the expression that two classifiers agree on.

    No package ships labeled photos of expressions. Here a person is a point of the face GAN's
    latent space and their photos lie around it, as in `synthetic`; a face is kept where both
    classifiers (`fedaudit.models.expression_nets`) name the same of `classes`. People are dealt to
    the classes evenly by the face at their very point; a person's photos may differ from it. The
    labels are as good as the classifiers are. Many people with few photos each, because photos of
    one person teach the person (so `[federation] photos = 1`). Rare expressions take a minute to
    find: latents and labels are kept in the user's cache folder.

    Args:
        size: Side of the photos in pixels; they are labeled as the generator draws them, at 64.
        people: How many people; at least one a class.
        photos: How many photos of each, at least 2.
        classes: Which expressions, of "angry", "disgusted", "fearful", "happy", "neutral", "sad",
            "surprised". The generator hardly draws disgust or fear.
        confidence: Least probability that either classifier gives, in [0, 1).
        spread: How much photos of a person differ, in (0, 1).
        seed: Equal seeds give equal faces; other sizes show the same faces.

    Raises:
        DataError: A setting is out of range, or the generator draws too few such faces.
        UnknownNameError: There is no such expression.
        AssetError: The generator or a classifier is neither cached nor fetchable.
    """
    _check(people, photos, classes, confidence, spread)
    search = _Search(people, photos, tuple(classes), confidence, spread, seed)
    generator = load_generator("face_gan")
    assert isinstance(generator, FaceGan)
    digests = [ASSETS[name].sha256 for name in ("face_gan", "expression", "expression_fer")]
    key = key_of({}, "expressions", VERSION, search, digests, torch.__version__)
    matches = load_or_learn(
        key,
        lambda: search.run(generator),
        None,
        what="invented expressions",
        valid=("latents", "labels"),
    )
    with torch.no_grad():
        parts = [generator(z) for z in torch.split(matches["latents"], _DRAW)]
    faces = invented_people("expressions", torch.cat([resize(p, size) for p in parts]), photos)
    return replace(
        faces,
        terms=f"{faces.terms}; labels by face-api.js and fer (MIT)",
        expressions=tuple(EXPRESSIONS[label] for label in matches["labels"].tolist()),
    )


def expression_folder(*, path: str, size: int = 64) -> FaceSet:
    """A user's photos below `path`, a folder an expression: `faces/happy/1.jpg`.

    Who is who is not known, so nothing is said about re-identification.

    Args:
        path: Folder that holds the expressions' folders.
        size: Side of the photos in pixels.

    Raises:
        DataError: As for `fedaudit.data.folder.folder`, of expressions instead of people.
    """
    try:
        photos = folder(path=path, size=size)
    except DataError as error:
        raise DataError(f"{error} (Here a folder is an expression, not a person.)") from error
    return replace(photos, people=photos.sources, expressions=photos.people, has_identities=False)


@dataclass(frozen=True)
class _Search:
    """Settings of `expressions` that decide which latents are taken."""

    people: int
    photos: int
    classes: tuple[str, ...]
    confidence: float
    spread: float
    seed: int

    def run(self, generator: Generator) -> dict[str, Tensor]:
        """`latents` `[people · photos, D]` and `labels` in `EXPRESSIONS`, a person after another.

        Raises:
            DataError: Too few such faces among all that were drawn.
        """
        quota = Counter(self.classes[k % len(self.classes)] for k in range(self.people))
        latents, labels = [], []
        for latent, label, name in self._candidates(generator):
            if not quota[name]:
                continue
            quota[name] -= 1
            latents.append(latent)
            labels.append(label)
            if not quota.total():
                return {"latents": torch.cat(latents), "labels": torch.cat(labels)}
        missing = ", ".join(f"{n} {name}" for name, n in quota.items() if n)
        raise DataError(
            f"the face generator draws too few such faces: among {_MOST * self.people} people, "
            f"{missing} were not found. Lower people, photos or confidence, or leave that "
            "expression out of classes."
        )

    def _candidates(self, generator: Generator) -> Iterator[tuple[Tensor, Tensor, str]]:
        """People of whom enough photos are agreed on: latents, labels, and their expression."""
        noise = torch.Generator().manual_seed(self.seed)
        numbers = torch.tensor([EXPRESSIONS.index(name) for name in self.classes])
        for _ in range(0, _MOST * self.people, _DRAW):
            middles = torch.randn(_DRAW, generator.latent_dim, generator=noise)
            classes = self._labels(generator, middles)
            for k in torch.isin(classes, numbers).nonzero().flatten().tolist():
                around = torch.randn(_TRIES * self.photos, generator.latent_dim, generator=noise)
                near = math.sqrt(1 - self.spread**2) * middles[k] + self.spread * around
                labels = self._labels(generator, near)
                usable = torch.isin(labels, numbers).nonzero().flatten()[: self.photos]
                if len(usable) == self.photos:
                    yield near[usable], labels[usable], EXPRESSIONS[int(classes[k])]

    def _labels(self, generator: Generator, latents: Tensor) -> Tensor:
        with torch.no_grad():
            return load_expressions().agreed(generator(latents), self.confidence)


def _check(
    people: int, photos: int, classes: Sequence[str], confidence: float, spread: float
) -> None:
    for name in classes:
        if name not in EXPRESSIONS:
            raise UnknownNameError("expression", name, EXPRESSIONS)
    if len(set(classes)) < max(2, len(classes)):
        raise DataError(f"classes must name at least two expressions, each once: {classes}")
    if people < len(classes) or photos < 2 or not 0 < spread < 1 or not 0 <= confidence < 1:
        raise DataError(
            f"expressions with people = {people}, photos = {photos}, spread = {spread}, "
            f"confidence = {confidence}: needed are at least a person a class, two photos of each, "
            "a spread in (0, 1) and a confidence in [0, 1)."
        )
