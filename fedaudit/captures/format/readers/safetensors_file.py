"""Read `.safetensors`: tensors and no code."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedaudit.captures.format.readers.limits import (
    Limits,
    check_file,
    check_name,
    check_shape,
    check_total,
)
from fedaudit.core.errors import CaptureError

LARGEST_HEADER = 16 << 20
TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}
"""The types that are read: numbers as clients send them."""


@dataclass(frozen=True)
class Entry:
    """A tensor as the header declares it; `begin` and `end` count from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file holds, without its numbers.

    Attributes:
        entries: The tensors by name.
        metadata: Text that stands beside them.
        size: Bytes of the file.
        digest: SHA-256 of the header as it stands in the file; "" where it was not read from one.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    size: int
    digest: str = ""


def read_header(path: Path, limits: Limits) -> Header:
    """The checked header of a file: every tensor lies within it, and they do not overlap.

    Raises:
        CaptureError: The file is damaged, or goes beyond `limits`.
    """
    size = check_file(path, limits)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or length > size - 8:
                raise CaptureError(path, "it is cut off or no safetensors file")
            if length > LARGEST_HEADER:
                raise CaptureError(path, f"its header has {length:,} bytes: too many")
            text = file.read(length)
            table = json.loads(text)
    except OSError as error:
        raise CaptureError(path, f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CaptureError(
            path, "its header is no JSON: it is damaged, or no safetensors"
        ) from error
    header = _check(path, table, 8 + length, size, limits)
    return replace(header, digest=sha256(text).hexdigest())


def _check(path: Path, table: Any, start: int, size: int, limits: Limits) -> Header:
    """The header once it is known to describe what follows it."""
    if not isinstance(table, dict):
        raise CaptureError(path, "its header is not a table: it is damaged, or no safetensors")
    metadata = table.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CaptureError(path, "its metadata are not text")
    check_total(path, len(table), 0, limits)
    entries = {
        n: _entry(path, check_name(path, n, limits), e, start, limits) for n, e in table.items()
    }
    position = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise CaptureError(
                path, "its place in the file overlaps another's or leaves a gap", key=name
            )
        position = entry.end
    if position != size:
        raise CaptureError(
            path,
            f"it has {size:,} bytes where its header says {position:,}: it was cut off or added to",
        )
    check_total(path, len(entries), size - start, limits)
    return Header(entries, metadata, size)


def read(path: Path, limits: Limits) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        CaptureError: The file is damaged, or goes beyond `limits`.
    """
    return load(path, read_header(path, limits))


def load(path: Path, header: Header) -> dict[str, Tensor]:
    """The tensors behind a checked header, in the order of the file.

    Raises:
        CaptureError: The file is not what its header says.
    """
    tensors = {}
    try:
        # Not mapped: a mapped file that somebody cuts off meanwhile ends the whole program.
        with path.open("rb", buffering=0) as file:
            for name, entry in header.entries.items():
                content = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
                file.seek(entry.begin)
                _fill(path, name, file, content.numpy().data)
                tensors[name] = content.view(entry.dtype).view(entry.shape)
    except OSError as error:
        raise CaptureError(path, f"it cannot be read: {error.strerror or error}") from error
    return tensors


def _fill(path: Path, name: str, file: io.FileIO, place: memoryview) -> None:
    while place:
        count = file.readinto(place)
        if not count:
            raise CaptureError(path, "it was cut off while it was read", key=name)
        place = place[count:]


def from_bytes(path: Path, name: str, content: bytes, limits: Limits) -> Tensor:
    """The only tensor of a safetensors file that lies within another file.

    Raises:
        CaptureError: It is damaged, holds more, or goes beyond `limits`.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or length > min(len(content) - 8, LARGEST_HEADER):
        raise CaptureError(path, "it is cut off", key=name)
    try:
        table = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise CaptureError(path, "its header is no JSON", key=name) from error
    header = _check(path, table, 8 + length, len(content), limits)
    if len(header.entries) != 1:
        raise CaptureError(path, "it is more than one tensor", key=name)
    (entry,) = header.entries.values()
    if entry.begin == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype)
    flat = torch.frombuffer(bytearray(content[entry.begin : entry.end]), dtype=entry.dtype)
    return flat.view(entry.shape)


def _entry(path: Path, name: str, plain: Any, start: int, limits: Limits) -> Entry:
    try:
        dtype, shape = TYPES[plain["dtype"]], tuple(plain["shape"])
        begin, end = plain["data_offsets"]
        if not isinstance(begin, int) or not isinstance(end, int):
            raise TypeError("offsets are whole numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise CaptureError(
            path, "its entry has no known type, shape and place", key=name
        ) from error
    size = check_shape(path, name, shape, dtype.itemsize, limits)
    if begin < 0 or end - begin != size:
        declaration = f"{end - begin:,}" if abs(end - begin) < 1 << 64 else "others"
        raise CaptureError(
            path,
            f"its shape {list(shape)} needs {size:,} bytes, and {declaration} are declared",
            key=name,
        )
    return Entry(dtype, shape, start + begin, start + end)
