"""Valid files in every format that is read, for tests that damage them."""

import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from uuid import UUID

import numpy as np
import safetensors.torch
import torch
from torch import Tensor


def state() -> dict[str, Tensor]:
    """A small state dict of several types and shapes."""
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "norm.running_mean": torch.randn(4, generator=generator),
        "norm.num_batches_tracked": torch.tensor(7),
        "head.weight": torch.randn(5, 6, generator=generator).t(),
        "head.bias": torch.randn(5, generator=generator).double(),
    }


def npy(array: np.ndarray) -> bytes:
    """An array in numpy's format."""
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number as protocol buffers write it."""
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def array_record(tensors: Mapping[str, Tensor]) -> bytes:
    """Flower's `ArrayRecord`: items of a key and an `Array` (dtype, shape, stype, data)."""
    items = b""
    for name, tensor in tensors.items():
        array = tensor.numpy()
        shape = b"".join(varint(n) for n in array.shape)
        parts = field(1, str(array.dtype).encode()) + field(2, shape)
        parts += field(3, b"numpy.ndarray") + field(4, npy(array))
        items += field(1, field(1, name.encode()) + field(2, parts))
    return items


def parameters(tensors: Sequence[Tensor]) -> bytes:
    """Flower's legacy `Parameters`."""
    arrays = b"".join(field(1, npy(tensor.numpy())) for tensor in tensors)
    return arrays + field(2, b"numpy.ndarray")


def write_safetensors(path: Path) -> None:
    """As safetensors writes it."""
    safetensors.torch.save_file({n: t.contiguous() for n, t in state().items()}, path)


def write_torch(path: Path) -> None:
    """As torch writes it."""
    torch.save(state(), path)


def write_npz(path: Path) -> None:
    """As numpy writes it."""
    np.savez(path, **{name: tensor.numpy() for name, tensor in state().items()})  # type: ignore[arg-type]


def write_packed_npz(path: Path) -> None:
    """As numpy writes it with compression."""
    np.savez_compressed(path, **{n: t.numpy() for n, t in state().items()})  # type: ignore[arg-type]


def write_record(path: Path) -> None:
    """As Flower serializes it."""
    path.write_bytes(array_record(state()))


def write_record_dict(path: Path) -> None:
    """As Flower serializes a message's content."""
    metrics = field(1, field(1, b"metrics") + field(3, b""))
    path.write_bytes(field(1, field(1, b"arrays") + field(2, array_record(state()))) + metrics)


def packed(value: object) -> bytes:
    """Plain values in msgpack, in its longest forms."""
    if isinstance(value, dict):
        pairs = b"".join(packed(k) + packed(v) for k, v in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + pairs
    if isinstance(value, str):
        return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    assert isinstance(value, int)
    return b"\xd3" + struct.pack(">q", value)


def built(kind: str, data: object) -> dict[str, object]:
    """How NVFlare's FOBS writes an object."""
    return {"__fobs_type__": kind, "__fobs_data__": data, "__fobs_dc__": "some.Decomposer"}


def dxo(tensors: Mapping[str, Tensor], *, apart: Sequence[str] = ()) -> bytes:
    """NVFlare's DXO: arrays as `.npy`, tensors as safetensors, some in sections of their own."""
    data, sections = {}, b""
    for number, (name, tensor) in enumerate(tensors.items()):
        array = number % 2 == 0
        raw = npy(tensor.numpy()) if array else safetensors.torch.save({"t": tensor.contiguous()})
        content: object = raw
        if name in apart:
            key = UUID(int=number + 1)
            sections += struct.pack(">BBQ", 102, 0, 16 + len(raw)) + key.bytes + raw
            reference = {"data": {"datum_id": str(key), "unwrap": 1}}
            content = built("nvflare.fuel.utils.fobs.datum.DatumRef", reference)
        kind = "numpy.ndarray" if array else "torch.Tensor"
        data[name] = built(kind, {"type": "native", "data": content})
    kind_of_data = built("nvflare.apis.dxo.DataKind", "WEIGHTS")
    inner = {"data": {"data_kind": kind_of_data, "data": data, "meta": {"steps": 3}}}
    main = packed(built("nvflare.apis.dxo.DXO", inner))
    return struct.pack(">BBQ", 100, 0, len(main)) + main + sections


def write_dxo(path: Path) -> None:
    """As NVFlare serializes it."""
    path.write_bytes(dxo(state(), apart=["conv.weight", "head.weight"]))


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "a.safetensors": write_safetensors,
    "a.pt": write_torch,
    "a.npz": write_npz,
    "b.npz": write_packed_npz,
    "a.pb": write_record,
    "b.pb": write_record_dict,
    "a.fobs": write_dxo,
}
"""By the name of the file that each writes."""


def zip_bomb(path: Path, size: int) -> None:
    """An npz of one huge array of zeros, a thousandth of it on the disk."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("w.npy", "w", force_zip64=True) as member,
    ):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size // 4},), }}\n"
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
