"""Read msgpack into plain values; bytes stay views of the file, and nothing it names is looked up.

Only what data need (the specification at msgpack.org): no extension types, nesting bounded.
"""

import struct
from collections.abc import Callable
from typing import Any

DEPTH = 32
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_TABLES = {0xDE: 2, 0xDF: 4}
_WORDS: dict[int, bool | None] = {0xC0: None, 0xC2: False, 0xC3: True}


def unpack(content: memoryview) -> Any:
    """One value, which must fill `content`.

    Raises:
        ValueError: It is damaged, nested too deeply, or uses what data do not need.
    """
    value, place = _value(content, 0, DEPTH)
    if place != len(content):
        raise ValueError("something follows the value")
    return value


def _value(  # noqa: PLR0911 - one a type
    content: memoryview, place: int, depth: int
) -> tuple[Any, int]:
    if depth == 0:
        raise ValueError("it is nested too deeply")
    (code,) = _take(content, place, 1)
    place += 1
    if code in _WORDS:
        return _WORDS[code], place
    if code < 0x80 or code >= 0xE0:
        return code if code < 0x80 else code - 0x100, place
    if code in _NUMBERS:
        size = struct.calcsize(_NUMBERS[code])
        return struct.unpack(_NUMBERS[code], _take(content, place, size))[0], place + size
    if 0xA0 <= code < 0xC0 or code in _TEXTS:
        length, place = _length(content, place, code, _TEXTS, 0x1F)
        return str(_take(content, place, length), "utf-8"), place + length
    if code in _BYTES:
        length, place = _length(content, place, code, _BYTES, 0)
        return _take(content, place, length), place + length
    if 0x90 <= code < 0xA0 or code in _LISTS:
        length, place = _length(content, place, code, _LISTS, 0x0F)
        return _items(content, place, length, lambda c, p: _value(c, p, depth - 1))
    if 0x80 <= code < 0x90 or code in _TABLES:
        length, place = _length(content, place, code, _TABLES, 0x0F)
        pairs, place = _items(content, place, length, lambda c, p: _pair(c, p, depth - 1))
        return dict(pairs), place
    raise ValueError(f"it holds a value of type {code:#x}, which data do not need")


def _pair(content: memoryview, place: int, depth: int) -> tuple[tuple[str, Any], int]:
    key, place = _value(content, place, depth)
    if not isinstance(key, str):
        raise ValueError("a key is no text")
    value, place = _value(content, place, depth)
    return (key, value), place


def _items(
    content: memoryview,
    place: int,
    count: int,
    read: Callable[[memoryview, int], tuple[Any, int]],
) -> tuple[list[Any], int]:
    """So many items, each of a byte at least."""
    if count > len(content) - place:
        raise ValueError("it is cut off")
    items = []
    for _ in range(count):
        item, place = read(content, place)
        items.append(item)
    return items, place


def _length(
    content: memoryview, place: int, code: int, widths: dict[int, int], mask: int
) -> tuple[int, int]:
    """A length: in the code itself, or in the bytes behind it."""
    width = widths.get(code)
    if width is None:
        return code & mask, place
    return int.from_bytes(_take(content, place, width), "big"), place + width


def _take(content: memoryview, place: int, count: int) -> memoryview:
    if count > len(content) - place:
        raise ValueError("it is cut off")
    return content[place : place + count]
