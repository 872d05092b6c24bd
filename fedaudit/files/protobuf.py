"""The wire format of protocol buffers: a key (field number, kind), then a number or so many bytes.

The `protobuf` package needs a schema of every message and would build all of it before a limit can
be held against it; what two readers here need of it are thirty lines.
"""

from collections.abc import Iterator

_WIDTHS = {1: 8, 5: 4}
"""Bytes of the kinds of fixed width."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field, in order: a number of a varint, bytes of everything else.

    Raises:
        ValueError: The bytes are no message, or end in the middle of one.

    >>> [(number, value) for number, value in fields(memoryview(bytes([8, 150, 1])))]
    [(1, 150)]
    """
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = varint(message, place)
            yield key >> 3, value
            continue
        length, start = varint(message, place) if kind == 2 else (_WIDTHS.get(kind, -1), place)
        place = start + length
        if length < 0 or place > len(message):
            raise ValueError("it ends in the middle of a field, or is no protocol buffer")
        yield key >> 3, message[start:place]


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number that begins at `place`, seven bits a byte, and the place behind it."""
    value = 0
    for shift, byte in enumerate(message[place : place + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place + shift + 1
    raise ValueError("it ends in the middle of a number, or the number is too long")
