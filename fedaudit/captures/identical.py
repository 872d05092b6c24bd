"""Which messages hold the same numbers bit for bit.

After secure aggregation some frameworks hand the server the *aggregate* as many times as there are
clients (Flower's SecAgg+ workflow): to take it for so many updates would be wrong.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from fedaudit.captures.stored import StoredMessage

_SAMPLES, _WIDTH, _CHUNK = 32, 512, 1 << 20


def identical_groups(stored: Iterable[StoredMessage]) -> list[tuple[StoredMessage, ...]]:
    """The messages, those that are bit-identical and from different clients together, in order."""
    alike: dict[bytes, list[StoredMessage]] = {}
    for message in stored:
        alike.setdefault(_glance(message), []).append(message)
    groups: list[tuple[StoredMessage, ...]] = []
    for candidates in alike.values():
        groups += [(one,) for one in candidates] if len(candidates) == 1 else _sure(candidates)
    return groups


def _sure(candidates: Sequence[StoredMessage]) -> list[tuple[StoredMessage, ...]]:
    same: dict[bytes, list[StoredMessage]] = {}
    for message in candidates:
        same.setdefault(_digest(message), []).append(message)
    return [tuple(group) for group in same.values()]


def _layout(message: StoredMessage) -> bytes:
    entries = message.header.entries
    kind = (message.message.kind, message.message.sign)
    return repr(
        (kind, [(n, e.dtype, e.shape, e.end - e.begin) for n, e in entries.items()])
    ).encode()


def _glance(message: StoredMessage) -> bytes:
    """A digest of a few places: different where the messages are, but for rare cases."""
    found = sha256(_layout(message))
    entries = message.header.entries.values()
    begin, end = min(e.begin for e in entries), max(e.end for e in entries)
    with message.path.open("rb") as file:
        for sample in range(_SAMPLES):
            file.seek(begin + (end - begin) * sample // _SAMPLES)
            found.update(file.read(min(_WIDTH, end - file.tell())))
    return found.digest()


def _digest(message: StoredMessage) -> bytes:
    found = sha256(_layout(message))
    with message.path.open("rb") as file:
        file.seek(min(e.begin for e in message.header.entries.values()))
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.digest()
