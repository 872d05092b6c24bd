import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedaudit.core.errors import AssetError
from fedaudit.files.onnx_file import read_onnx
from fedaudit.models.onnx_network import load_onnx


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of protobuf's wire format."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, value: Tensor) -> bytes:
    kind = {torch.float32: 1, torch.int8: 3, torch.int64: 7}[value.dtype]
    shape = b"".join(field(1, size) for size in value.shape)
    return shape + field(2, kind) + field(8, name) + field(9, value.numpy().tobytes())


def node(op: str, inputs: list[str], output: str, **settings: list[int] | int | float) -> bytes:
    listed = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, op)
    for name, value in settings.items():
        one = field(1, name)
        if isinstance(value, list):
            one += field(8, b"".join(map(varint, value)))  # packed
        elif isinstance(value, int):
            one += field(3, value)
        else:
            one += varint(2 << 3 | 5) + struct.pack("<f", value)
        listed += field(5, one)
    return listed


def written(path: Path, nodes: list[bytes], weights: dict[str, Tensor], output: str) -> Path:
    graph = b"".join(field(1, n) for n in nodes)
    graph += b"".join(field(5, tensor(*item)) for item in weights.items())
    graph += field(11, field(1, "images")) + field(12, field(1, output))
    path.write_bytes(field(1, 8) + field(7, graph))
    return path


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    noise = torch.Generator().manual_seed(3)
    weights = {
        "coded": torch.randint(-128, 128, (4, 27), generator=noise).to(torch.int8),
        "scales": torch.rand(4, 3, generator=noise),
        "zeros": torch.randint(-5, 5, (4, 3), generator=noise).to(torch.int8),
        "shape": torch.tensor([4, 3, 3, 3]),
        "bias": torch.randn(4, generator=noise),
        "slope": torch.rand(4, 1, 1, generator=noise),
        "matrix": torch.randn(5, 64, generator=noise),
    }
    nodes = [
        node("DequantizeLinear", ["coded", "scales", "zeros"], "flat", axis=1, block_size=9),
        node("Reshape", ["flat", "shape"], "kernel"),
        node("Conv", ["images", "kernel", "bias"], "maps", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("PRelu", ["maps", "slope"], "bent"),
        node("Flatten", ["bent"], "row"),
        node("Gemm", ["row", "matrix"], "features", transB=1),
    ]
    return written(tmp_path / "n.onnx", nodes, weights, "features"), weights


def test_a_network_in_eight_bits_computes_what_its_graph_says(
    network: tuple[Path, dict[str, Tensor]],
) -> None:
    file, w = network
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scale, zero = (w[name].float().repeat_interleave(9, 1) for name in ("scales", "zeros"))
    kernel = ((w["coded"].float() - zero) * scale).view(4, 3, 3, 3)
    maps = F.prelu(F.conv2d(images, kernel, w["bias"], 2, 1), w["slope"].flatten())
    assert torch.allclose(load_onnx(file)(images), maps.flatten(1) @ w["matrix"].T, rtol=1e-5)


def test_every_truncation_is_refused(
    network: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    whole = network[0].read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(AssetError, match="cannot be read as an ONNX network"):
            read_onnx(cut)


def test_an_unknown_operation_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "n.onnx", [node("LSTM", ["images"], "out")], {}, "out")
    with pytest.raises(AssetError, match="LSTM"):
        load_onnx(file)
