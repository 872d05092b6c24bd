"""Three thousand damaged and hostile files at every reader, in the process that reads them."""

import json
import pickle
import random
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from torch import Tensor

from fedaudit.captures.format.readers import reading_process
from fedaudit.captures.format.readers.formats import read_here, read_tensors
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.core.errors import CaptureError

sys.path.insert(0, str(Path(__file__).parents[1] / "captures"))
import hostile

MUTATIONS = 430
"""Of each of the seven valid files."""
LIMITS = Limits(total_bytes=1 << 20, small=1 << 20, file_bytes=32 << 20)
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    b"-1 1e9 [] null NaN 99999999999999999999999 \x1b[2J \xe2\x80\xae ../../x __import__('os') "
    b"cposix\nsystem\n \x80\x02c R. { ] }"
).split(b" ")


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to four faults, more of them where headers are."""
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(min(len(content), 400) if draw.random() < 0.5 else len(content))
        length = draw.choice((1, 2, 4, 8, 64))
        kind = draw.randrange(7)
        if kind == 0:
            middle = bytes([content[place] ^ 1 << draw.randrange(8)])
            content = content[:place] + middle + content[place + 1 :]
        elif kind == 1:
            number = (draw.choice(NUMBERS) % 256**length).to_bytes(length, draw.choice(ORDERS))
            content = content[:place] + number + content[place + length :]
        elif kind == 2:
            content = content[:place] + draw.choice(WORDS) + content[place + length :]
        elif kind == 3:
            content = content[:place] + content[place : place + length] * 8 + content[place:]
        elif kind == 4:
            content = content[:place] + content[place + length :]
        elif kind == 5:
            other = draw.randrange(len(content))
            content = content[:place] + content[other : other + length] + content[place:]
        elif len(content) > 1 and draw.random() < 0.3:
            content = content[: max(1, place)]
        content = content or b"\x00"
    return content


ORDERS = ("little", "big")


def members_mutated(content: bytes, draw: random.Random) -> bytes:
    """A sound archive around damaged members, whose checksums are right."""
    target = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as sound, zipfile.ZipFile(target, "w") as archive:
        members = sound.infolist()
        chosen = draw.choice(members)
        for member in members:
            inner = sound.read(member)
            damaged = member is chosen and inner
            archive.writestr(member.filename, mutated(inner, draw) if damaged else inner)
    return target.getvalue()


class Canary:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def handmade(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Files that no mutation finds: pickles that act, and every small file of one byte again."""
    for protocol in range(2, 6):
        act = pickle.dumps(Canary(canary), protocol)
        table = pickle.dumps({"w": Canary(canary)}, protocol)
        for content in (act, table):
            yield "bare.pt", content
            for name, member in (("a.pt", "a/data.pkl"), ("a.npz", "w.npy")):
                target = BytesIO()
                with zipfile.ZipFile(target, "w") as archive:
                    archive.writestr(member, content)
                yield name, target.getvalue()
            array = b"\x93NUMPY\x01\x00" + struct.pack("<H", 64)
            header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
            array += header.ljust(63) + b"\n" + content
            target = BytesIO()
            with zipfile.ZipFile(target, "w") as archive:
                archive.writestr("w.npy", array)
            yield "objects.npz", target.getvalue()
            yield "objects.pb", hostile.field(1, array)
            built = hostile.built("builtins.open", {"args": [str(canary), "w"]}.__repr__())
            main = hostile.packed(built)
            yield "a.fobs", struct.pack(">BBQ", 100, 0, len(main)) + main
    evaluated = f"{{'descr': open({str(canary)!r}, 'w'), 'shape': ()}}\n".encode()
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(
            "w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(evaluated)) + evaluated
        )
    yield "evaluated.npz", target.getvalue()
    for ending in (".pt", ".npz", ".pb", ".fobs", ".safetensors"):
        for byte in (0, 10, 0x50, 0x80, 0x90, 0xFF):
            for length in (1, 8, 100, 100_000):
                yield f"same{ending}", bytes([byte]) * length
    huge = {"w": {"dtype": "F32", "shape": [10**4000], "data_offsets": [0, 4]}}
    tables: tuple[object, ...] = (huge, [[]], 1)
    for header_of in tables:
        text = json.dumps(header_of).encode()
        yield "a.safetensors", struct.pack("<Q", len(text)) + text + bytes(4)
    deep = b"[" * 100_000
    yield "deep.safetensors", struct.pack("<Q", len(deep)) + deep


def files(folder: Path, canary: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents, always the same."""
    draw = random.Random(20_261_126)
    for name, write in hostile.WRITERS.items():
        write(folder / name)
        sound = (folder / name).read_bytes()
        for number in range(MUTATIONS):
            archive = name.endswith(("pt", "npz")) and number % 2
            yield name, (members_mutated if archive else mutated)(sound, draw)
    yield from handmade(canary)


def outcome(path: Path) -> str:
    """What reading comes to; anything but tensors within limits or a clean error fails."""
    try:
        found = read_tensors(path, limits=LIMITS)
    except CaptureError as error:
        told = str(error)
        assert path.name in told
        assert told.isprintable()
        assert len(told) < 600 + len(str(path))
        assert "its reader died" not in told
        assert "takes more than" not in told
        return "refused"
    assert found
    assert all(isinstance(t, Tensor) and n.isprintable() for n, t in found.items())
    assert sum(t.numel() * t.element_size() for t in found.values()) <= LIMITS.total_bytes
    return "read"


def peak() -> int:
    """Most memory that the process that reads has had, in kB."""
    process = reading_process._READER.process
    status = Path(f"/proc/{process.pid}/status") if process else Path("/none")
    if not status.exists():
        return 0
    (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1])


@pytest.mark.slow
def test_three_thousand_files(tmp_path: Path) -> None:
    canary, counts, slowest = tmp_path / "canary", {"read": 0, "refused": 0}, 0.0
    before = None
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in files(tmp_path, canary):
        path = tmp_path / name
        path.write_bytes(content)
        began = time.monotonic()
        counts[outcome(path)] += 1
        first = before is None and peak()  # the start of the process is no file's fault
        slowest = max(slowest, 0.0 if first else time.monotonic() - began)
        before = before or peak() or None
    assert not canary.exists()
    assert sum(counts.values()) >= 3000
    assert counts["read"] > 100
    assert counts["refused"] > 1500
    assert slowest < 10
    assert peak() - (before or 0) < 256_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own < 256_000


def test_the_canary_sings(tmp_path: Path) -> None:
    """Else it would prove nothing."""
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary"))).close()
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("fault", [RuntimeError, AssertionError, RecursionError, MemoryError])
def test_any_fault_of_a_reader_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def fail(path: Path, limits: Limits) -> dict[str, Tensor]:
        raise fault("x" * 5000)

    from fedaudit.captures.format.readers import formats

    hostile.write_torch(tmp_path / "a.pt")
    monkeypatch.setattr(formats, "FORMATS", {".pt": formats.Format("broken", fail)})
    with pytest.raises(CaptureError, match=r"a\.pt: ") as raised:
        read_here(tmp_path / "a.pt", Limits())
    assert len(str(raised.value)) < 300 + len(str(tmp_path))
