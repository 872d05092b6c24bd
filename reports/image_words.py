"""The words of a report on pictures that are no faces: images that were copied, not people.

Statistics, controls and verdicts are the same for both, and so are the sentences, but for their
nouns. They are put in place here, once, in whatever a report says: so no sentence is written
twice, and none is forgotten. Names that a study gives are left as they are.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar, cast

from fedaudit.reports.comparison import GRAVITY
from fedaudit.reports.results import Results

T = TypeVar("T")

WORDS: Mapping[str, str] = {
    "the photos, and a portrait of each person": "the images",
    "against other photos of the same person": "to that very image, held against others of its "
    "class",
    "that an embedder, independent of the audited model, matches to a different photo of the same "
    "person": "that a judge, independent of the audited model, takes for that very image",
    "cosine of an embedder that is independent of the audited model": "cosine of features that do "
    "not depend on the audited model",
    "the independent embedder matches to the right person": "the independent judge takes for that "
    "very image",
    "how often the embedder takes two different people for one": "how often the judge takes two "
    "different images of a class for one",
    "pairs of different people": "pairs of different images of a class",
    "the embedder": "the judge",
    "the independent embedder": "the independent judge",
    "no embedder": "no judge",
    "whose nearest gallery person is the right one. chance: 1/n": "to which no image of the class "
    "is nearer than the right one. Chance: 1/N, of a class",
    "its identity cosine to another photo of the same person": "its similarity to its original",
    "how close each face comes to its person": "how close each image comes to its original",
    "identity cosines": "similarities",
    "pictures of people. store and share it as biometric data": "copies of the originals. "
    "Store and share it as you do these",
    "contains biometric data": "contains originals",
    "biometric data": "special categories of data, such as health",
    "identity ceiling (the originals themselves, re-identified)": "copy ceiling (the originals "
    "themselves, plain and in 20 dB of noise, found)",
    "a threshold calibrated on photos says little about images that are not faces": "a threshold "
    "calibrated on originals says little about what looks like none of them",
    "an invented person (of sets without people: of other images)": "other images of the same "
    "classes, which never train",
    "nobody's other photos reach it": "no other image reaches it",
    "identity is judged by the stated networks": "copies are told by the stated judges",
    "trace of identity": "trace of the image",
    "one photo of one person a row": "one image a row",
    "gallery: the worst": "pictures: the worst",
    "another client's person": "another client's image",
    "what gives the face away": "what gives the image away",
    "federated face recognition": "federated learning",
    "of whom": "of which",
    "for whom": "for which",
    "whom": "which",
    "who they are": "which they are",
    "who it was": "which image it was",
    "who is in the data": "which images are in the data",
    "who is in a client's data": "which images are in a client's data",
    "who": "that",
    "test on identity": "test of copies",
    "randomization on identity": "randomization",
    "identity cosine": "similarity",
    "worst cosine": "highest similarity",
    "identity metrics": "copy metrics",
    "identity": "likeness",
    "identities": "images",
    "re-identification rate": "copy rate",
    "re-identification": "images copied",
    "re-identifies": "copies",
    "re-identified": "copied",
    "re-identify": "copy",
    "re-id": "copied",
    "an invented person": "another image",
    "invented person": "other image",
    "invented people": "other images",
    "a person counts": "an image counts",
    "a person": "an image",
    "one person": "one image",
    "person's": "image's",
    "person": "image",
    "persons": "images",
    "people's": "images'",
    "people": "images",
    "somebody else's": "another image's",
    "somebody else": "another image",
    "somebody": "some image",
    "nobody's": "no image's",
    "nobody": "no image",
    "everybody's": "all images'",
    "everybody": "every image",
    "anybody": "any image",
    "a face": "an image",
    "faces": "images",
    "face": "image",
    "a photo": "an image",
    "photos": "images",
    "photo": "image",
    "photograph": "image",
    "the gallery": "the references",
    "gallery": "references",
    "recognizes": "finds",
    "recognize": "find",
    "recognized": "found",
}
"""What stands in place of what; of several that fit, the longest."""
_VERBATIM = frozenset(
    (
        "study",
        "reason",
        "description",
        "release_context",
        "provenance",
        "settings",
        "of",
        "person",
        "cell",
    )
)
"""Fields that hold what a user wrote, or what code reads."""
_ATTRIBUTE = re.compile(r'(\b(?:alt|aria-label|title)=")([^"]*)')
_MARKUP = re.compile(r"(<style.*?</style>|<script.*?</script>|<[^>]*>)", re.DOTALL)


def in_words_of_images(results: Results) -> Results:
    """The same results with images in place of people, and marked as such."""
    say = _speaker(frozenset(_names(results)))
    return replace(cast(Results, _reword(results, say)), subject="images")


def page_of_images(page: str, results: Results) -> str:
    """The same page: what is read, not its markup, style or script."""
    say = _speaker(frozenset(_names(results)))
    return "".join(
        _ATTRIBUTE.sub(lambda match: match[1] + say(match[2]), part)
        if part.startswith("<")
        else say(part)
        for part in _MARKUP.split(page)
    )


def text_of_images(text: str) -> str:
    """A text that holds no names.

    >>> text_of_images("Somebody re-identified in 2 of 4 updates; nobody in the others")
    'Some image copied in 2 of 4 updates; no image in the others'
    """
    return _speaker(frozenset())(text)


@cache
def _speaker(names: frozenset[str]) -> Callable[[str], str]:
    literals = sorted((name for name in names if name), key=len, reverse=True)
    words = sorted(WORDS, key=len, reverse=True)
    phrases = [word for word in words if " " in word]
    single = [word for word in words if " " not in word]
    groups = [("phrase", phrases), ("name", literals), ("word", single)]
    pattern = re.compile(
        "|".join(
            rf"(?P<{group}>(?<![\w-])(?:{'|'.join(map(re.escape, some))})(?![\w-]))"
            for group, some in groups
            if some
        ),
        re.IGNORECASE,
    )

    def put(match: re.Match[str]) -> str:
        text = match[0]
        if match.lastgroup == "name" and text in names:
            return text
        instead = WORDS.get(text.lower())
        if instead is None:
            return text
        if text.isupper() and len(text) > 1:
            return instead.upper()
        return instead[0].upper() + instead[1:] if text[0].isupper() else instead

    return lambda text: pattern.sub(put, text)


def _reword(value: Any, say: Callable[[str], str], field: str = "") -> Any:
    if isinstance(value, str):
        prose = (" " in value and value not in GRAVITY) or field == "unit"
        return say(value) if prose and field not in _VERBATIM else value
    if is_dataclass(value) and not isinstance(value, type):
        if field in _VERBATIM:
            return value
        parts = {f.name: _reword(getattr(value, f.name), say, f.name) for f in fields(value)}
        return replace(value, **parts)
    if isinstance(value, Mapping):
        return {key: _reword(item, say, field) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_reword(item, say, field) for item in value)
    return value


def _names(results: Results) -> Iterable[str]:
    """What the study calls its parts; sentences hold them."""
    yield results.study
    yield from results.deployed
    for row in results.rows:
        yield from (row.scenario, row.network, row.method, row.defense, row.attack)
