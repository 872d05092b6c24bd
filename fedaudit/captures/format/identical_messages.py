"""Which messages hold the same numbers bit for bit.

After secure aggregation some frameworks hand the server the *aggregate* as many times as there are
clients (Flower's SecAgg+ workflow): to take it for so many updates would be wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from fedaudit.captures.format.stored_message import StoredMessage

_SAMPLES, _WIDTH, _CHUNK = 32, 512, 1 << 20


def identical_groups(
    stored: Iterable[StoredMessage], known: Mapping[Path, str] | None = None
) -> list[tuple[StoredMessage, ...]]:
    """The messages, those that are bit-identical and from different clients together, in order.

    `known` holds the `content` of some, by path, which then are not read.
    """
    messages, known = list(stored), known or {}
    if all(message.path in known for message in messages):
        return _sure(messages, known)
    alike: dict[bytes, list[StoredMessage]] = {}
    for message in messages:
        alike.setdefault(_glance(message), []).append(message)
    groups: list[tuple[StoredMessage, ...]] = []
    for candidates in alike.values():
        groups += (
            [(one,) for one in candidates] if len(candidates) == 1 else _sure(candidates, known)
        )
    return groups


def content_of(tensors: Mapping[str, Tensor]) -> str:
    """A digest (SHA-256, hexadecimal) of the numbers of contiguous tensors on the CPU."""
    digest = sha256()
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def content(message: StoredMessage) -> str:
    """As `content_of`, of a file."""
    digest = sha256()
    with message.path.open("rb") as file:
        for _, entry in sorted(message.header.entries.items()):
            file.seek(entry.begin)
            left = entry.end - entry.begin
            while chunk := file.read(min(_CHUNK, left)):
                digest.update(chunk)
                left -= len(chunk)
    return digest.hexdigest()


def _sure(
    candidates: Sequence[StoredMessage], digests: Mapping[Path, str]
) -> list[tuple[StoredMessage, ...]]:
    same: dict[tuple[bytes, str], list[StoredMessage]] = {}
    for message in candidates:
        numbers = digests.get(message.path) or content(message)
        same.setdefault((_layout(message), numbers), []).append(message)
    return [tuple(group) for group in same.values()]


def _layout(message: StoredMessage) -> bytes:
    entries = message.header.entries
    exponents = sorted(message.message.exponents.items())
    kind = (message.message.kind, message.message.sign, exponents)
    return repr(
        (kind, [(n, e.dtype, e.shape, e.end - e.begin) for n, e in entries.items()])
    ).encode()


def _glance(message: StoredMessage) -> bytes:
    """A digest of a few places: different where the messages are, but for rare cases."""
    digest = sha256(_layout(message))
    entries = message.header.entries.values()
    begin, end = min(e.begin for e in entries), max(e.end for e in entries)
    with message.path.open("rb") as file:
        for sample in range(_SAMPLES):
            file.seek(begin + (end - begin) * sample // _SAMPLES)
            digest.update(file.read(min(_WIDTH, end - file.tell())))
    return digest.digest()
