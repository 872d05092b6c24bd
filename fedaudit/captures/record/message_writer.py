"""One message of a capture: a safetensors file whose header holds a `Message`."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fedaudit.captures.format.message_header import KEY
from fedaudit.core.errors import UsageError
from fedaudit.files.atomic import MARK, storage_errors

_CHUNK = 1 << 20


def write_message(
    paths: Iterable[Path], header: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> bool:
    """Write a message, whole or not at all, to the first path that is free; mode 0600.

    It is not forced to the disk, because training would wait for that: a computer that loses power
    may leave a damaged file, which readers report.

    Args:
        paths: In one folder, which exists.
        header: The message under `KEY`, and what else stands beside the tensors.
        tensors: As `ready` makes them.

    Returns:
        Whether one of the files now holds the message; False where all hold others.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    places = iter(paths)
    path = next(places)
    with storage_errors(path), _temporary(path) as temporary:
        safetensors.torch.save_file(dict(tensors), temporary, dict(header))
        while not (_publish(temporary, path) or _same(temporary, path)):
            if (following := next(places, None)) is None:
                return False
            path = following
    return True


def write_new(path: Path, content: bytes) -> bool:
    """Write a file where there is none, whole or not at all; mode 0600. False where there is."""
    with _temporary(path) as temporary:
        temporary.write_bytes(content)
        return _publish(temporary, path)


@contextlib.contextmanager
def _temporary(path: Path) -> Any:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=MARK)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _publish(temporary: Path, path: Path) -> bool:
    """Give the file its name, unless another has it."""
    try:
        os.link(temporary, path)  # unlike a renaming, it never replaces
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK}:
            raise
        if path.exists():
            return False
        os.replace(temporary, path)  # a file system without links
    return True


def ready(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU that share no memory; what is so already is not copied.

    Args:
        tensors: By name, tensors or arrays of any device and layout.

    Raises:
        UsageError: Something is no tensor, or has a type that no file can hold.
    """
    result: dict[str, Tensor] = {}
    storages = set()
    for name, tensor in each_ready(tensors):
        storage = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if storage in storages else tensor  # tied weights, say
        storages.add(storage)
    return result


def each_ready(tensors: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Contiguous tensors on the CPU, one after the other; raises as `ready`."""
    if not tensors:
        raise UsageError("a message without tensors cannot be recorded. Give a state dict.")
    for name, tensor_like in tensors.items():
        yield str(name), _tensor(str(name), tensor_like).detach().to("cpu").contiguous()


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray | np.generic):
        array = np.require(value, requirements="W")
        if array.dtype.kind not in "fiub":
            raise UsageError(f"{name!r} is an array of {array.dtype}: only numbers are recorded.")
        value = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        what = type(value).__name__ if not isinstance(value, Tensor) else "not a dense tensor"
        raise UsageError(
            f"{name!r} is {what}: only dense tensors and numpy arrays are recorded. Convert it "
            "first (to_dense(), dequantize()), or leave it out."
        )
    if len(name) > 500:
        raise UsageError(f"the name {name[:60]!r} … is longer than 500 characters.")
    return value


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same message, whenever each was recorded."""
    with one.open("rb") as a, other.open("rb") as b:
        headers = []
        for file in (a, b):
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            message = json.loads(header.pop("__metadata__")[KEY])
            headers.append((header, {**message, "received": 0}))
        if headers[0] != headers[1]:
            return False
        while chunk := a.read(_CHUNK):
            if chunk != b.read(_CHUNK):
                return False
        return not b.read(1)
