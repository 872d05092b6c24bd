"""Read arrays as Flower serializes them: `ArrayRecord`, `RecordDict` or the legacy `Parameters`.

Files that hold `array_record_to_proto(record).SerializeToString()` or the like: protocol buffers,
whose fields are numbers (checked with Flower 1.42). Neither Flower nor protobuf is needed.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from fedaudit.captures.format.readers.limits import Limits, check_file, check_name, check_total
from fedaudit.captures.format.readers.npy import read_bytes
from fedaudit.core.errors import CaptureError
from fedaudit.files.protobuf import fields

_NUMPY = b"\x93NUMPY"
_DAMAGED = "it is damaged, or holds no arrays as Flower serializes them"
_Field = tuple[int, int | memoryview]


def read(path: Path, limits: Limits) -> dict[str, Tensor]:
    """The arrays by name; legacy `Parameters`, a list, as `arr_0`, `arr_1` ….

    Raises:
        CaptureError: The file is damaged, or goes beyond `limits`.
    """
    check_file(path, limits)
    with path.open("rb") as file:
        # Closed when the last view of it is gone, for a traceback may hold one.
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    arrays = _arrays(path, content, limits, iter(range(50 * limits.tensors)), may_nest=True)
    check_total(path, len(arrays), sum(len(data) for data in arrays.values()), limits)
    return {name: read_bytes(path, name, bytes(data), limits) for name, data in arrays.items()}


def _arrays(
    path: Path, content: memoryview, limits: Limits, budget: Iterator[int], *, may_nest: bool
) -> dict[str, memoryview]:
    """The bytes of each array, by name; `budget` ends after as many fields as a file may have."""
    items = []
    for number, value in _fields(path, content, budget):
        if number == 1:
            items.append(_message(path, value))
        if len(items) > limits.tensors:
            raise CaptureError(path, f"it holds more than {limits.tensors:,} arrays")
    if not items:
        raise CaptureError(path, _DAMAGED)
    if all(bytes(item[:6]) == _NUMPY for item in items):
        return {f"arr_{place}": item for place, item in enumerate(items)}
    arrays: dict[str, memoryview] = {}
    for item in items:
        parts = _message_fields(path, item, budget)
        name = check_name(path, _text(path, parts.get(1, memoryview(b""))), limits)
        if 2 not in parts:  # a record of metrics or of settings
            continue
        array = _message_fields(path, _message(path, parts[2]), budget)
        if 3 not in array:  # no array but a record of arrays, in a `RecordDict`
            if not may_nest or (len(items) > 1 and arrays):
                raise CaptureError(path, "it holds several records of arrays: save one of them")
            arrays = _arrays(path, _message(path, parts[2]), limits, budget, may_nest=False)
            continue
        if (how := _text(path, array[3])) != "numpy.ndarray":
            raise CaptureError(path, f"it is serialized as {how[:80]!r}", key=name)
        if name in arrays:
            raise CaptureError(path, "it stands in the file twice", key=name)
        arrays[name] = _message(path, array.get(4, 0))
    numbers = [str(place) for place in range(len(arrays))]
    if list(arrays) == numbers:  # `ArrayRecord(list_of_arrays)`
        return {f"arr_{number}": arrays[number] for number in numbers}
    return arrays


def _message_fields(
    path: Path, content: memoryview, budget: Iterator[int]
) -> dict[int, memoryview | int]:
    """The fields of a message by number; of these formats none has a number above 4."""
    return {number: value for number, value in _fields(path, content, budget) if number <= 4}


def _fields(path: Path, content: memoryview, budget: Iterator[int]) -> Iterator[_Field]:
    """Numbers and values of the fields of a message, in order."""
    try:
        for field in fields(content):
            if next(budget, None) is None:
                raise CaptureError(path, "it has more fields than its arrays need: it is damaged")
            yield field
    except ValueError as error:
        raise CaptureError(path, _DAMAGED) from error


def _message(path: Path, value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise CaptureError(path, _DAMAGED)
    return value


def _text(path: Path, value: memoryview | int) -> str:
    try:
        return bytes(_message(path, value)).decode()
    except UnicodeDecodeError as error:
        raise CaptureError(path, _DAMAGED) from error
