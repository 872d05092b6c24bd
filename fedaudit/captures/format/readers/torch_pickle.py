"""Read the description of a `torch.save` archive without unpickling: data only, nothing is called.

A pickle is a program for a small stack machine. `torch.save` uses a few of its instructions, and
of all the functions that it may name only those that put a tensor together. This interpreter knows
just these: what they would build is written down as `Stored` and `View`, and no function that a
file names is ever looked up, let alone called. (`torch.load(weights_only=True)` calls the functions
on its own list, and takes the sizes in a file for granted.)
"""

import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedaudit.core.errors import CaptureError

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
_STEPS = 2_000_000
_DEEPEST = 100
"""Containers within each other; a state dict needs four."""
_DIMENSIONS = 64


@dataclass(frozen=True)
class Stored:
    """A storage: a member of the archive."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class View:
    """A tensor: where it lies in its storage, in numbers, not bytes."""

    storage: Stored
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A function or class that the file names."""

    name: str


_MARK = object()


def describe(path: Path, content: bytes) -> Any:
    """What the pickle describes: dicts, lists, tuples, text, numbers, and `View` for tensors.

    Raises:
        CaptureError: It is damaged, or names a function that no tensor needs.
    """
    machine = _Machine(path)
    try:
        for step, (code, argument, _) in enumerate(pickletools.genops(content)):
            if step > _STEPS:
                raise CaptureError(path, "its description has too many steps")
            if code.name == "STOP":
                return machine.pop()
            machine.run(code.name, argument)
    except CaptureError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CaptureError(path, f"its description is damaged ({type(error).__name__})") from error
    raise CaptureError(path, "its description is cut off")


class _Machine:
    """The stack machine; faults raise what Python raises, and `describe` translates them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.depths: dict[int, tuple[Any, int]] = {}  # by id, with the container, so that it stays
        self.copied = 0

    def pop(self) -> Any:
        item = self.stack.pop()
        if item is _MARK:
            raise ValueError("a mark is no value")
        return item

    def run(self, code: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915
        match code:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE":
                self.stack.append(argument)
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST":
                self.stack.append([])
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self.pop() for _ in range(int(code[-1]))]
                self._push_tuple(items[::-1])
            case "TUPLE":
                self._push_tuple(self._since_mark())
            case "APPEND" | "APPENDS":
                items = [self.pop()] if code == "APPEND" else self._since_mark()
                self._top(list).extend(items)
                self._deepen(self.stack[-1], items)
            case "SETITEM" | "SETITEMS":
                items = [self.pop(), self.pop()][::-1] if code == "SETITEM" else self._since_mark()
                keys, values = items[::2], items[1::2]
                self._top(dict).update(zip(map(_key, keys), values, strict=True))
                self._deepen(self.stack[-1], values)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                self.stack.append(self.memo[argument])
            case "GLOBAL":
                self.stack.append(self._name(argument))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise TypeError("a name is text")
                self.stack.append(self._name(f"{module} {name}"))
            case "BINPERSID":
                self.stack.append(_storage(self.pop()))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                self.stack.append(self._build(function, arguments))
            case "BUILD":
                self.pop()  # attributes such as a state dict's `_metadata`, of no use here
                self.stack[-1]
            case _:
                raise CaptureError(
                    self.path, f"its description has the instruction {code}, which no tensor needs"
                )

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _push_tuple(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))
        if items:
            self._deepen(self.stack[-1], items)

    def _deepen(self, container: Any, items: Iterable[Any]) -> None:
        """Refuse containers that hold each other too deeply, as what hashes or compares would."""
        depth = max(self._depth(container), 1 + max(map(self._depth, items), default=0))
        if depth > _DEEPEST:
            raise CaptureError(self.path, "its description is nested too deeply")
        if depth > 1:
            self.depths[id(container)] = container, depth

    def _depth(self, item: Any) -> int:
        entry = self.depths.get(id(item))
        return entry[1] if entry else int(isinstance(item, dict | list | tuple))

    def _build(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise TypeError("only what has a name is called")
        if function.name != _ORDERED:
            return _tensor(function, arguments)
        pairs = arguments[0] if arguments else []
        if not isinstance(pairs, list):
            raise TypeError("a table is made of a list of pairs")
        self.copied += len(pairs)  # one list may be named again and again
        if self.copied > _STEPS:
            raise CaptureError(self.path, "its description has too many steps")
        return {_key(key): value for key, value in pairs}

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError("a container is needed")
        return self.stack[-1]

    def _name(self, name: str) -> _Name:
        module, _, last = name.partition(" ")
        if name in {_TENSOR, _PARAMETER, _ORDERED} or (module == "torch" and last in STORAGES):
            return _Name(name)
        raise CaptureError(
            self.path,
            f"to load it is to call {name[:80].replace(' ', '.')!r}, and no function of a file is "
            "called. Save a state dict: torch.save(model.state_dict(), …) or safetensors",
        )


def _storage(reference: Any) -> Stored:
    word, kind, key, _, count = reference
    if word != "storage" or not isinstance(kind, _Name) or type(count) is not int or count < 0:
        raise ValueError("no storage")
    if not isinstance(key, str) or not key.isalnum():
        raise ValueError("no key of a storage")
    return Stored(STORAGES[kind.name.partition(" ")[2]], key, count)


def _key(key: Any) -> str | int:
    """A key of a table; anything else could take for ever to hash."""
    if type(key) is not str and type(key) is not int:
        raise TypeError("a key is text or a whole number")
    return key


def _tensor(function: _Name, arguments: tuple[Any, ...]) -> View:
    if function.name == _PARAMETER:
        if not isinstance(arguments[0], View):
            raise TypeError("a parameter is a tensor")
        return arguments[0]
    if function.name != _TENSOR:
        raise TypeError("a storage is not called")
    storage, offset, shape, stride, *_ = arguments
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise TypeError("a shape is a tuple")
    if len(shape) != len(stride) or len(shape) > _DIMENSIONS:
        raise ValueError("a stride a dimension")
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, Stored) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("no tensor")
    return View(storage, offset, shape, stride)
