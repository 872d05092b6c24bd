"""Read one array in numpy's `.npy` format from bytes whose number is known. No pickle is loaded."""

import io
import tokenize
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from fedaudit.captures.format.readers.limits import Limits, check_shape
from fedaudit.core.errors import CaptureError

_HEADERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}
_DAMAGED = (
    *(ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError, OverflowError),
    *(MemoryError, RecursionError),
)
"""What numpy raises on a header that is none; it parses a Python literal, and evaluates nothing."""


def read_array(path: Path, name: str, file: BinaryIO, size: int, limits: Limits) -> Tensor:
    """One array; its shape is compared with the bytes that there are before memory is taken.

    Args:
        path: For messages.
        name: The array's, for messages.
        file: At the start of the array, and of the file.
        size: Bytes of the array with its header.
        limits: What is refused.

    Raises:
        CaptureError: Damaged, an array of objects, or other bytes than its shape needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in what is no header
            version = npy_format.read_magic(file)
            if version not in _HEADERS:
                raise CaptureError(path, f"its numpy format {version} is not read", key=name)
            shape, fortran, dtype = _HEADERS[version](file)
    except _DAMAGED as error:
        raise CaptureError(
            path, "it is no array in numpy's format, or its header is damaged", key=name
        ) from error
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise CaptureError(
            path,
            f"it is an array of {str(dtype)[:40]}, and only numbers are read. Objects would need "
            "pickle, which can run any program: save numbers with np.savez(…)",
            key=name,
        )
    length, left = check_shape(path, name, shape, dtype.itemsize, limits), size - file.tell()
    if length != left:
        raise CaptureError(
            path,
            f"its shape {list(shape)} needs {length:,} bytes, and it has {left:,}: it was cut off "
            "or changed",
            key=name,
        )
    content = bytearray(file.read(length))
    if len(content) != length:
        raise CaptureError(path, "it is cut off", key=name)
    array = np.frombuffer(content, dtype=dtype).astype(dtype.newbyteorder("="), copy=False)
    array = array.reshape(shape, order="F" if fortran else "C")
    return torch.from_numpy(np.ascontiguousarray(array) if fortran else array)


def read_bytes(path: Path, name: str, content: bytes, limits: Limits) -> Tensor:
    """As `read_array`, of bytes in memory."""
    return read_array(path, name, io.BytesIO(content), len(content), limits)
