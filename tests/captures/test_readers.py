import json
import os
import pickle
import resource
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedaudit.captures.format.readers.formats import bind, read_tensors
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.core.errors import CaptureError

sys.path.insert(0, str(Path(__file__).parent))
import hostile

MARK = "a program in a file was run"


class Evil:
    """Pickled, it creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", hostile.WRITERS)
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    hostile.WRITERS[name](tmp_path / name)
    read = read_tensors(tmp_path / name)
    expected = hostile.state()
    assert set(read) == set(expected)
    for key, tensor in expected.items():
        assert read[key].dtype == tensor.dtype
        assert torch.equal(read[key], tensor)


@pytest.mark.parametrize("kind", ["npz", "pt", "pb"])
def test_lists_are_bound_by_number_not_by_text(tmp_path: Path, kind: str) -> None:
    values = [torch.full((2,), float(n)) for n in range(12)]  # arr_10 sorts before arr_2
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, *[v.numpy() for v in values])
    elif kind == "pt":
        torch.save(values, path)
    else:
        path.write_bytes(hostile.parameters(values))
    names = [f"layer{n}.weight" for n in range(12)]
    read = bind(path, list(read_tensors(path).values()), names)
    assert [float(read[name][0]) for name in names] == list(range(12))
    with pytest.raises(CaptureError, match="12 tensors, and the model has 11"):
        bind(path, values, names[1:])
    with pytest.raises(CaptureError, match="without names"):
        bind(path, values, [])


@pytest.mark.parametrize("wrapped", ["state_dict", "model", None])
def test_torch_files_of_all_kinds(tmp_path: Path, wrapped: str | None) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    state = network.state_dict()
    shared = torch.arange(10.0)
    extra = {"view": shared[2:8:2], "base": shared, "half": torch.ones(3).bfloat16()}
    extra["scalar"], extra["none"] = torch.tensor(True), torch.empty(0, 4)
    content: Any = OrderedDict(state) | extra
    torch.save({wrapped: content, "epoch": 3} if wrapped else content, tmp_path / "a.pt")
    read = read_tensors(tmp_path / "a.pt")
    assert list(read) == list(content)
    assert all(torch.equal(read[name], content[name]) for name in content)
    torch.save({n: nn.Parameter(t) for n, t in state.items() if t.is_floating_point()},
               tmp_path / "b.pth")  # fmt: skip
    read = read_tensors(tmp_path / "b.pth")
    assert all(torch.equal(tensor, state[name]) for name, tensor in read.items())


def _evil_files(folder: Path, flag: Path) -> list[Path]:
    """Files in every format that would run a program if they were loaded carelessly."""
    paths = [folder / name for name in ("module.pt", "bare.pt", "inside.pt", "objects.npz")]
    torch.save({"w": Evil(flag)}, paths[0])
    paths[1].write_bytes(pickle.dumps(Evil(flag)))
    torch.save({"w": torch.zeros(3)}, folder / "good.pt")
    with zipfile.ZipFile(folder / "good.pt") as good, zipfile.ZipFile(paths[2], "w") as evil:
        for member in good.infolist():
            content = good.read(member)
            if member.filename.endswith("data.pkl"):
                content = pickle.dumps(Evil(flag), protocol=2)
            evil.writestr(member.filename, content)
    np.savez(paths[3], w=np.array([Evil(flag)], dtype=object))
    for suffix in ("safetensors", "pb", "npz"):
        paths.append(folder / f"renamed.{suffix}")
        paths[-1].write_bytes(pickle.dumps(Evil(flag)))
    return paths


def test_no_pickle_is_ever_executed(tmp_path: Path) -> None:
    flag = tmp_path / MARK
    paths = _evil_files(tmp_path, flag)
    # The files are what they claim: whoever loads one of them runs what is in it.
    torch.load(paths[0], weights_only=False)
    assert flag.is_dir()
    flag.rmdir()
    for path in paths:
        with pytest.raises(CaptureError) as raised:
            read_tensors(path)
        assert not flag.exists(), path.name
        assert path.name in str(raised.value)
    with pytest.raises(CaptureError, match=r"posix\.mkdir|os\.mkdir"):
        read_tensors(paths[0])


def test_not_even_a_callable_that_torch_allows_is_called(tmp_path: Path) -> None:
    """`weights_only=True` would let these take memory as large as a file likes."""
    for call in (
        b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02ctorch.storage\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02X\x01\x00\x00\x00ar\xff\xff\xff\x7f.",  # a memo of two billion places
    ):
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", call)
        with pytest.raises(CaptureError):
            read_tensors(tmp_path / "a.pt")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    hostile.zip_bomb(tmp_path / "bomb.npz", 1 << 29)
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000,), }\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(huge)) + huge.encode() + bytes(80)
    with zipfile.ZipFile(tmp_path / "shape.npz", "w") as archive:
        archive.writestr("w.npy", array)
    (tmp_path / "shape.pb").write_bytes(hostile.field(1, array))
    entry = {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    header = json.dumps(entry).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + bytes(64))
    # One number seen as a billion by a stride of 0.
    torch.save({"w": torch.zeros(1).expand(1 << 30)}, tmp_path / "stride.pt")
    before = _peak()
    for name in (
        "bomb.npz",
        "shape.npz",
        "shape.pb",
        "a.safetensors",
        "b.safetensors",
        "stride.pt",
    ):
        with pytest.raises(CaptureError, match=name):
            read_tensors(tmp_path / name)
    assert _peak() - before < 64 << 20


def test_limits_hold_in_every_format(tmp_path: Path) -> None:
    for name, write in hostile.WRITERS.items():
        write(tmp_path / name)
        for limits in (
            Limits(file_bytes=100),
            Limits(total_bytes=100, small=0),
            Limits(tensors=2),
            Limits(name=5),
            Limits(dimensions=3),
        ):
            with pytest.raises(CaptureError, match=name):
                read_tensors(tmp_path / name, limits=limits)


def test_members_with_paths_are_only_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("../../escaped.npy", hostile.npy(np.zeros(3)))
        archive.writestr("/tmp/abs.npy", hostile.npy(np.ones(3)))
    assert list(read_tensors(tmp_path / "a.npz")) == ["../../escaped", "/tmp/abs"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    assert not (tmp_path.parent.parent / "escaped.npy").exists()


@pytest.mark.parametrize("name", hostile.WRITERS)
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    hostile.WRITERS[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for keep in (0, 1, 7, len(content) // 2, len(content) - 1):
        (tmp_path / name).write_bytes(content[:keep])
        with pytest.raises(CaptureError) as raised:
            read_tensors(tmp_path / name)
        assert raised.value.file.endswith(name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("missing.npz", "no such file"),
        ("folder.npz", "not a regular file"),
        ("model.ckpt", r"If torch\.save wrote it, rename it to \.pt"),
        ("model.bin", r"If torch\.save wrote it, rename it to \.pt"),
        ("model.h5", r"ends in '\.h5'.*safetensors"),
        ("update.pkl", "need code to be run"),
        ("noend", "ends in 'nothing'"),
    ],
)
def test_what_is_not_read_says_why(tmp_path: Path, name: str, match: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    for other in ("model.ckpt", "model.bin", "model.h5", "update.pkl", "noend"):
        (tmp_path / other).write_bytes(b"x")
    with pytest.raises(CaptureError, match=match):
        read_tensors(tmp_path / name)


def test_a_script_and_an_old_file_are_named_as_such(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CaptureError, match=r"since 1\.6"):
        read_tensors(tmp_path / "old.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CaptureError, match=r"call 'torch\.nn\.modules\.linear\.Linear'"):
        read_tensors(tmp_path / "module.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/code/__torch__.py", "")
    with pytest.raises(CaptureError, match="TorchScript"):
        read_tensors(tmp_path / "script.pt")


def test_a_storage_shorter_than_described_is_refused(tmp_path: Path) -> None:
    """Torch itself would read beyond the end of it."""
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as good,
        zipfile.ZipFile(tmp_path / "b.pt", "w") as short,
    ):
        for member in good.infolist():
            content = good.read(member)
            short.writestr(member.filename, content[:40] if len(content) == 4000 else content)
    with pytest.raises(CaptureError, match="'w': the archive does not hold"):
        read_tensors(tmp_path / "b.pt")


def test_names_cannot_speak_to_a_terminal(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"w\x1b[2J": np.zeros(1)})  # type: ignore[arg-type]
    with pytest.raises(CaptureError) as raised:
        read_tensors(tmp_path / "a.npz")
    assert "\x1b" not in str(raised.value)


def test_big_endian_and_fortran_arrays_are_read(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    np.savez(tmp_path / "a.npz", w=array)
    assert read_tensors(tmp_path / "a.npz")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", ["O", "U3", "c8", "M8[s]", "V4"])
def test_only_arrays_of_numbers_are_read(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / "a.npz", w=np.zeros(2, dtype=dtype))
    with pytest.raises(CaptureError, match=r"'w': .*only numbers are read"):
        read_tensors(tmp_path / "a.npz")
