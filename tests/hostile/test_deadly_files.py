"""Files that ended, hung or filled the process that read them: each is one clear error."""

import os
import signal
import struct
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedaudit.captures.format.readers import reading_process
from fedaudit.captures.format.readers.formats import read_here, read_tensors
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.format.readers.safetensors_file import load, read_header
from fedaudit.core.errors import CaptureError


def torch_file(path: Path, description: bytes) -> Path:
    """An archive as `torch.save` writes it, around any description."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", description)
    return path


def refused(path: Path, match: str, limits: Limits | None = None) -> None:
    began = time.monotonic()
    with pytest.raises(CaptureError, match=match) as raised:
        read_tensors(path, limits=limits)
    assert path.name in str(raised.value)
    assert len(str(raised.value)) < 300 + len(str(path))
    assert time.monotonic() - began < 10


@pytest.fixture(autouse=True)
def started(tmp_path: Path) -> None:
    """The process that reads runs, so that its start does not count."""
    torch.save({"w": torch.zeros(1)}, tmp_path / "start.pt")
    read_tensors(tmp_path / "start.pt")


_DOUBLING = b"X\x01\x00\x00\x00a" + b"2\x86" * 60
PICKLES = {
    # Twice: to be hashed as a key, and to be torn down.
    "a million tuples as a key": b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",
    "a million tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "a million lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
    "doubling tuples as a key": b"\x80\x02}" + _DOUBLING.replace(b"2", b"q\x00h\x00") + b"K\x01s.",
    "doubling tuples name a function": (
        b"\x80\x02" + _DOUBLING.replace(b"2", b"q\x00h\x00") + b"X\x01\x00\x00\x00b\x93."
    ),
    "doubling tuples in pairs of a table": (
        b"\x80\x02ccollections\nOrderedDict\n](]"
        + _DOUBLING.replace(b"2", b"q\x00h\x00")
        + b"K\x01e\x85R."
    ),
    "a float as a key": b"\x80\x02}G" + bytes(8) + b"K\x01s.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a table of a huge list, again and again": (
        b"\x80\x02](" + b")" * 1000 + b"eq\x00ccollections\nOrderedDict\nq\x01"
        b"0(" + b"h\x01h\x00\x85R" * 50_000 + b"l."
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_description_made_to_kill(tmp_path: Path, name: str) -> None:
    refused(torch_file(tmp_path / "a.pt", PICKLES[name]), "descri|state dict|instruction")


def test_what_inflates_past_its_stated_size_is_read_no_further(tmp_path: Path) -> None:
    for name, member in (("a.npz", "w.npy"), ("a.pt", "a/data.pkl")):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, bytes(1 << 27))
        content = bytearray(path.read_bytes())
        for sign, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            struct.pack_into("<L", content, content.rindex(sign) + place, 4096)
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(CaptureError):
            read_here(path, Limits())
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
        tracemalloc.stop()
        refused(path, "archive|numpy|descri")


def test_views_of_one_storage_are_counted_each(tmp_path: Path) -> None:
    base = torch.zeros(1 << 20)
    torch.save({f"w{n}": base[:] for n in range(1000)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "share their numbers")
    torch.save({"w": base, "tied": base}, tmp_path / "tied.pt")
    assert list(read_tensors(tmp_path / "tied.pt")) == ["w", "tied"]


@pytest.mark.slow
def test_messages_of_a_byte_a_table(tmp_path: Path) -> None:
    for name, main in (
        ("maps", b"\xdd" + struct.pack(">I", 20_000_000) + b"\x80" * 20_000_000),
        ("lists", (b"\xdc\x4e\x20" + b"\x90" * 20_000) * 1000),
        ("nested", b"\x91" * 1_000_000),
    ):
        path = tmp_path / f"{name}.fobs"
        path.write_bytes(struct.pack(">BBQ", 100, 0, len(main)) + main)
        refused(path, "no DXO")
    (tmp_path / "fields.pb").write_bytes(b"\x10\x00" * 8_000_000)
    refused(tmp_path / "fields.pb", "more fields")
    nested = b""
    for _ in range(3000):
        nested = b"\x0a\x01r\x12" + _varint(len(nested)) + nested
        nested = b"\x0a" + _varint(len(nested)) + nested
    (tmp_path / "nested.pb").write_bytes(nested)
    refused(tmp_path / "nested.pb", "damaged|several")


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV])
def test_a_reader_that_dies_costs_one_file(tmp_path: Path, fault: signal.Signals) -> None:
    """Whatever kills it: a fault of a library, or a mapped file that was cut off."""
    process = reading_process._READER.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    timer = threading.Timer(0.5, _stop, (process.pid, fault))
    timer.start()
    refused(tmp_path / "start.pt", "its reader died")
    assert list(read_tensors(tmp_path / "start.pt")) == ["w"]


def _stop(process: int, fault: signal.Signals) -> None:
    os.kill(process, fault)
    os.kill(process, signal.SIGCONT)


def test_a_message_that_is_cut_off_while_it_is_open(tmp_path: Path) -> None:
    """No file is mapped in the process of the audit, which this would end."""
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(1 << 16)}, path)
    header = read_header(path, Limits())
    tensors = load(path, header)
    os.truncate(path, 4096)
    assert float(tensors["w"].sum()) == 1 << 16
    with pytest.raises(CaptureError, match="cut off while it was read"):
        load(path, header)


def test_a_reader_that_hangs_is_ended(tmp_path: Path) -> None:
    process = reading_process._READER.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    refused(tmp_path / "start.pt", "takes more than", Limits(seconds=0.2))
    assert process.poll() is not None
    assert list(read_tensors(tmp_path / "start.pt")) == ["w"]


def test_what_is_read_apart_is_the_same(tmp_path: Path) -> None:
    """Also names that safetensors keeps for itself, and numbers that are no numbers."""
    given = {
        "__metadata__": np.arange(6.0).reshape(2, 3),
        "b": np.array([np.nan, np.inf], np.float16),
    }
    np.savez(tmp_path / "a.npz", **given)  # type: ignore[arg-type]
    read = read_tensors(tmp_path / "a.npz")
    assert list(read) == list(given)
    for name, array in given.items():
        assert read[name].numpy().tobytes() == array.tobytes()
        assert tuple(read[name].shape) == array.shape


def test_nothing_in_the_current_folder_is_imported_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    for name in ("torch", "json", "safetensors", "msgpack", "resource"):
        (tmp_path / f"{name}.py").write_text(f"open({str(canary)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    reading_process._READER.end()
    assert list(read_tensors(Path("start.pt"))) == ["w"]
    assert not canary.exists()
