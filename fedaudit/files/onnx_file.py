"""Read the graph and the weights of an ONNX file: its protobuf fields, and nothing executes.

The `onnx` package reads them as well, and brings 20 MB for what are forty lines here.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedaudit.core.errors import AssetError
from fedaudit.files.protobuf import fields, varint

_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
# Of `TensorProto.DataType`: those that weights come in.

Fields = Mapping[int, list[Any]]


@dataclass(frozen=True)
class OnnxNode:
    """One operation of a graph.

    Attributes:
        op: Its type ("Conv").
        inputs, outputs: Names of tensors; "" where an optional input is left out.
        settings: Its attributes by name: a number, text, a tensor, or a list of numbers.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxGraph:
    """What an ONNX file holds.

    Attributes:
        nodes: In the order in which they run.
        weights: By name, in the type that they are stored in.
        inputs, outputs: Names of the tensors that go in and come out; weights may be among what
            goes in.
    """

    nodes: tuple[OnnxNode, ...]
    weights: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_onnx(file: Path) -> OnnxGraph:
    """The graph of an ONNX file.

    Raises:
        AssetError: It is not readable, not an ONNX file, or keeps its weights in other files.
    """
    try:
        (graph,) = _fields(file.read_bytes())[7]
        return _graph(_fields(graph))
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise AssetError(
            f"{file.name} cannot be read as an ONNX network with its weights inside: {error}. "
            "Export it anew as one file, or fetch it again."
        ) from error


def _graph(graph: Fields) -> OnnxGraph:
    weights = dict(_tensor(_fields(item)) for item in graph.get(5, []))
    inputs = (_text(_fields(item)[1][0]) for item in graph.get(11, []))
    return OnnxGraph(
        nodes=tuple(_node(_fields(item)) for item in graph.get(1, [])),
        weights=weights,
        inputs=tuple(inputs),
        outputs=tuple(_text(_fields(item)[1][0]) for item in graph.get(12, [])),
    )


def _node(node: Fields) -> OnnxNode:
    return OnnxNode(
        op=_text(node[4][0]),
        inputs=tuple(map(_text, node.get(1, []))),
        outputs=tuple(map(_text, node.get(2, []))),
        settings=dict(_setting(_fields(item)) for item in node.get(5, [])),
    )


def _setting(attribute: Fields) -> tuple[str, Any]:
    name = _text(attribute[1][0])
    if 2 in attribute:
        return name, struct.unpack("<f", attribute[2][0])[0]
    if 3 in attribute:
        return name, _sign(attribute[3][0])
    if 4 in attribute:
        return name, _text(attribute[4][0])
    if 5 in attribute:
        return name, _tensor(_fields(attribute[5][0]))[1]
    return name, _whole_numbers(attribute.get(8, []))


def _tensor(tensor: Fields) -> tuple[str, Tensor]:
    shape = _whole_numbers(tensor.get(1, []))
    kind = np.dtype(_TYPES[tensor[2][0]])
    if 9 in tensor:
        values = np.frombuffer(tensor[9][0], kind)
    elif kind == np.dtype("<f4"):
        values = np.frombuffer(b"".join(tensor.get(4, [])), kind)
    else:
        values = np.array(_whole_numbers(tensor.get(7, []) or tensor.get(5, [])), kind)
    if values.size != prod(shape):
        raise ValueError(f"a tensor of shape {shape} has {values.size} values")
    name = _text(tensor[8][0]) if 8 in tensor else ""
    return name, torch.from_numpy(values.reshape(shape).copy())


def _fields(message: bytes | memoryview) -> dict[int, list[Any]]:
    """Values of a message by field number."""
    values: dict[int, list[Any]] = {}
    for number, value in fields(memoryview(message)):
        values.setdefault(number, []).append(value)
    return values


def _whole_numbers(values: list[Any]) -> list[int]:
    """A repeated field of integers, packed or not."""
    return [_sign(n) for value in values for n in _unpack(value)]


def _unpack(value: int | memoryview) -> Iterator[int]:
    if isinstance(value, int):
        yield value
        return
    place = 0
    while place < len(value):
        number, place = varint(value, place)
        yield number


def _sign(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _text(value: memoryview) -> str:
    return bytes(value).decode()
