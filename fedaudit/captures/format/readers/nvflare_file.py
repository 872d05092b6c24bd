"""Read what NVFlare serializes: a DXO with arrays or tensors, as `dxo.to_bytes()` gives it.

The format (FOBS) names the classes to build; NVFlare looks them up. Here they are only compared
with the three that hold numbers, and nothing is imported. Checked with NVFlare 2.9. A file has a
section of msgpack and one for each array above 10 MB; a section begins with its kind, a number that
is 0 and its length.
"""

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import torch
from torch import Tensor

from fedaudit.captures.format.readers.limits import (
    Limits,
    check_copies,
    check_file,
    check_name,
    check_total,
)
from fedaudit.captures.format.readers.npy import read_bytes
from fedaudit.captures.format.readers.safetensors_file import from_bytes
from fedaudit.core.errors import CaptureError

_HEADER = struct.Struct(">BBQ")
_MAIN, _BLOB = 100, 102
_TYPE, _DATA = "__fobs_type__", "__fobs_data__"
_REFERENCE = "nvflare.fuel.utils.fobs.datum.DatumRef"


def read(path: Path, limits: Limits) -> dict[str, Tensor]:
    """The tensors of a DXO of kind WEIGHTS or WEIGHT_DIFF.

    Raises:
        CaptureError: The file is damaged, holds something else, or goes beyond `limits`.
    """
    check_file(path, limits)
    with path.open("rb") as file:
        # Closed when the last view of it is gone, for a traceback may hold one.
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    main, blobs = _sections(path, content)
    try:
        dxo = _inner(_unpack(main, limits))
        data = dxo["data"]["data"] if _TYPE not in dxo["data"] else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CaptureError(path, "it is damaged, or no DXO of NVFlare") from error
    if not isinstance(data, dict):
        raise CaptureError(path, "it is a DXO without weights")
    check_total(path, len(data), len(content), limits)
    tensors, total = {}, 0
    for name, value in data.items():
        tensor = _tensor(path, check_name(path, name, limits), value, blobs, limits)
        total += tensor.numel() * tensor.element_size()
        check_copies(path, total, len(content), limits)  # many may refer to one section
        tensors[name] = tensor
    return tensors


def _unpack(main: memoryview, limits: Limits) -> Any:
    """Plain values of msgpack; `ValueError` where a byte each of the file would become a table."""
    left = 40 * limits.tensors

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1 + len(container)
        if left < 0:
            raise ValueError("too many values")
        return container

    # No extension names what to build.
    return msgpack.unpackb(
        main,
        strict_map_key=True,
        max_ext_len=0,
        max_array_len=20_000,
        max_map_len=limits.tensors + 100,
        object_hook=count,
        list_hook=count,
    )


def _sections(path: Path, content: memoryview) -> tuple[memoryview, Mapping[str, memoryview]]:
    """The first section, and the others by the name that it refers to them with."""
    main, blobs, place = None, {}, 0
    while place < len(content):
        if len(content) - place < _HEADER.size:
            raise CaptureError(path, "it is cut off, or no DXO of NVFlare")
        kind, _, size = _HEADER.unpack_from(content, place)
        place += _HEADER.size
        if size > len(content) - place or kind != (_MAIN if main is None else _BLOB):
            raise CaptureError(path, "it is cut off, or no DXO of NVFlare")
        section = content[place : place + size]
        place += size
        if main is None:
            main = section
        elif size < 16:
            raise CaptureError(path, "it is damaged: a section has no name")
        else:
            blobs[str(UUID(bytes=bytes(section[:16])))] = section[16:]
    if main is None:
        raise CaptureError(path, "it is empty")
    return main, blobs


def _inner(value: Any) -> Any:
    """What a class of NVFlare would be built of."""
    return value.get(_DATA) if isinstance(value, dict) and _TYPE in value else value


def _tensor(
    path: Path, name: str, value: Any, blobs: Mapping[str, memoryview], limits: Limits
) -> Tensor:
    kind, inner = (value.get(_TYPE), _inner(value)) if isinstance(value, dict) else (None, value)
    if isinstance(inner, int | float) and (kind is None or str(kind).startswith("numpy.")):
        if isinstance(inner, int) and not -(2**63) <= inner < 2**63:
            raise CaptureError(path, "it is no number of 64 bits", key=name)
        return torch.tensor(inner)
    content = (
        inner.get("data") if isinstance(inner, dict) and inner.get("type") == "native" else None
    )
    if isinstance(content, dict) and content.get(_TYPE) == _REFERENCE:
        reference = content.get(_DATA)
        datum = reference.get("data") if isinstance(reference, dict) else None
        datum = datum.get("datum_id") if isinstance(datum, dict) else None
        content = blobs.get(datum) if isinstance(datum, str) else None
    if not isinstance(content, bytes | memoryview) or kind not in {"numpy.ndarray", "torch.Tensor"}:
        raise CaptureError(
            path,
            f"it is {str(kind)[:80]!r}, not an array or a tensor: encrypted, compressed, or sent "
            "apart. Save it as torch.save(dxo.data, …) where it is in the clear",
            key=name,
        )
    if kind == "numpy.ndarray":
        return read_bytes(path, name, bytes(content), limits)
    return from_bytes(path, name, bytes(content), limits)
