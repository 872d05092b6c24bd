"""Pseudonyms of people whose folders are called by their names: no name enters a run.

A pseudonym is a keyed hash of the name, and the key a hash of the photos themselves. So the same
photos give the same pseudonyms, whoever has the photos can tell who is who (`fedaudit names`), and
whoever has the run folder alone cannot, not even by trying all names. Public sets keep theirs.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from fedaudit.core.errors import DataError
from fedaudit.data.face_set import FaceSet
from fedaudit.files.cache import digest_of

_PURPOSE = b"fedaudit pseudonyms\0"
"""Keeps the key apart from the photos' other hashes, which reports print."""
_DIGITS = 12
"""Of 16 each: two of ten thousand people collide once in five million sets."""


def pseudonym(name: str, key: bytes) -> str:
    """What a person is called in a run.

    >>> pseudonym("anna", b"key")
    'person-d27d461c645c'
    """
    digest = hmac.new(key, name.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return f"person-{digest.hexdigest()[:_DIGITS]}"


def key_of_faces(faces: FaceSet) -> bytes:
    """The key of a face set: a hash of its pixels."""
    pixels = (faces.images * 255).round().to(torch.uint8).numpy()
    return hashlib.sha256(_PURPOSE + pixels.tobytes()).digest()


@cache
def key_of_folders(*folders: str) -> bytes:
    """The key of photos in folders: a hash of all files in them, and of their names."""
    digests = sorted(digest_of(Path(folder).expanduser()) for folder in {*folders})
    return hashlib.sha256(_PURPOSE + "".join(digests).encode()).digest()


def hide_names(faces: FaceSet, key: bytes) -> FaceSet:
    """A set in which people and files have pseudonyms, in an order that says nothing of names.

    The order of people decides who is whose client, and names were sorted to make it.
    """
    names = [pseudonym(name, key) for name in faces.people]
    order = sorted(range(len(names)), key=lambda k: (names[k], k))
    return replace(
        faces,
        images=faces.images[order],
        people=tuple(names[k] for k in order),
        sources=tuple(f"{names[k]}/{number}" for number, k in enumerate(order)),
        expressions=tuple(faces.expressions[k] for k in order if faces.expressions),
        attributes=tuple((name, tuple(has[k] for k in order)) for name, has in faces.attributes),
        left_out=tuple((pseudonym(s.split("/")[0], key), why) for s, why in faces.left_out),
    )


def names_behind(names: Iterable[str], key: bytes) -> Mapping[str, str]:
    """Whom each pseudonym stands for, by name."""
    return {pseudonym(name, key): name for name in sorted(set(names))}


@contextmanager
def nameless_errors() -> Iterator[None]:
    """Errors of photos without their files' names: a run logs them, and its folder is shared.

    Raises:
        DataError: Says how to see which photo it is.
    """
    try:
        yield
    except DataError:
        raise DataError(
            "the photos cannot be used any more as when the run began. The same command with "
            "--dry-run says which, and why; the log of a run names nobody."
        ) from None
