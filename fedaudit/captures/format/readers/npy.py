"""Read one array in numpy's `.npy` format from bytes whose number is known. No pickle is loaded."""

import ast
import io
import math
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from fedaudit.captures.format.readers.limits import Limits, check_shape
from fedaudit.core.errors import CaptureError

_MAGIC = b"\x93NUMPY"
_LARGEST_HEADER = 10_000


def read_array(path: Path, name: str, file: BinaryIO, size: int, limits: Limits) -> Tensor:
    """One array; its shape is compared with the bytes that there are before memory is taken.

    Args:
        path: For messages.
        name: The array's, for messages.
        file: At the start of the array.
        size: Bytes of the array with its header.
        limits: What is refused.

    Raises:
        CaptureError: Damaged, an array of objects, or other bytes than its shape needs.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8:
        raise CaptureError(path, "it is no array in numpy's format", key=name)
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if start[6] not in {1, 2, 3} or length > min(_LARGEST_HEADER, size):
        raise CaptureError(path, "its numpy header is damaged or of an unknown version", key=name)
    dtype, shape, fortran = _described(path, name, file.read(length))
    needed = check_shape(path, name, shape, dtype.itemsize, limits)
    if needed != size - 8 - width - length:
        raise CaptureError(
            path,
            f"its shape {list(shape)} needs {needed:,} bytes, and it has "
            f"{size - 8 - width - length:,}: it was cut off or changed",
            key=name,
        )
    content = bytearray(file.read(needed))
    if len(content) != needed:
        raise CaptureError(path, "it is cut off", key=name)
    array = np.frombuffer(content, dtype=dtype).astype(dtype.newbyteorder("="), copy=False)
    array = array.reshape(shape, order="F" if fortran else "C")
    return torch.from_numpy(array if fortran is False else np.ascontiguousarray(array))


def read_bytes(path: Path, name: str, content: bytes, limits: Limits) -> Tensor:
    """As `read_array`, of bytes in memory."""
    return read_array(path, name, io.BytesIO(content), len(content), limits)


def _described(path: Path, name: str, header: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Type, shape and order from the header, a Python literal: parsed, not evaluated."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in what is no header
            table = ast.literal_eval(header.decode("latin1").strip())
        descr, fortran, shape = table["descr"], table["fortran_order"], table["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise CaptureError(path, "its numpy header is damaged", key=name) from error
    if dtype is None or dtype.kind not in "fiub":
        raise CaptureError(
            path,
            f"it is an array of {str(descr)[:40]}, and only numbers are read. Objects would need "
            "pickle, which can run any program: save numbers with np.savez(…)",
            key=name,
        )
    plain = isinstance(shape, tuple) and all(type(n) is int for n in shape)
    if not plain or type(fortran) is not bool or dtype.itemsize > 8 or math.prod(shape) < 0:
        raise CaptureError(path, "its numpy header is damaged", key=name)
    return dtype, shape, fortran
