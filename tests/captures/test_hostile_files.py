"""Thousands of damaged files at every reader: a valid result or a clean error, nothing else."""

import resource
import sys
import time
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import fedaudit
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.captures.format.readers.formats import read_tensors
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.inspect.inspection import inspect
from fedaudit.core.errors import CaptureError, FedauditError

sys.path.insert(0, str(Path(__file__).parent))
import hostile

LIMITS = Limits(total_bytes=1 << 20, small=1 << 20, file_bytes=1 << 20)
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
DIGITS = (b"0", b"9" * 3, b"9" * 20, b"-1", b"1e9", b"[]", b'"', b"null")
QUICK = settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """One to three ways to damage a file, at places that shrink to its start, where headers are."""
    steps: list[Callable[[bytes], bytes]] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["flip", "cut", "number", "text", "splice", "repeat", "drop"]))
        early = draw(st.booleans())
        place = draw(st.integers(0, 300 if early else 10_000))
        if kind == "flip":
            bit = draw(st.integers(0, 7))
            steps.append(lambda b, p=place, v=bit: _put(b, p, bytes([b[p % len(b)] ^ 1 << v])))  # type: ignore[misc]
        elif kind == "cut":
            steps.append(lambda b, p=place: b[: p % len(b)])  # type: ignore[misc]
        elif kind == "number":
            value, width = draw(st.sampled_from(EXTREMES)), draw(st.sampled_from([1, 2, 4, 8]))
            number = (value % 256**width).to_bytes(width, "little")
            steps.append(lambda b, p=place, n=number: _put(b, p, n))  # type: ignore[misc]
        elif kind == "text":
            text, count = draw(st.sampled_from(DIGITS)), draw(st.integers(0, 30))
            steps.append(lambda b, t=text, c=count: _replace_number(b, c, t))  # type: ignore[misc]
        elif kind == "splice":
            noise = draw(st.binary(min_size=1, max_size=40))
            steps.append(lambda b, p=place, n=noise: b[: p % len(b)] + n + b[p % len(b) :])  # type: ignore[misc]
        elif kind == "repeat":
            steps.append(lambda b, p=place: b[: p % len(b)] + b)  # type: ignore[misc]
        else:
            length = draw(st.integers(1, 64))
            steps.append(lambda b, p=place, n=length: b[: p % len(b)] + b[p % len(b) + n :])  # type: ignore[misc]

    def damage(content: bytes) -> bytes:
        for step in steps:
            content = step(content) if content else content
        return content

    return damage


def _put(content: bytes, place: int, new: bytes) -> bytes:
    place %= len(content)
    return content[:place] + new + content[place + len(new) :]


def _replace_number(content: bytes, count: int, text: bytes) -> bytes:
    """Replace the `count`th run of digits: of a JSON header, or of a numpy header's shape."""
    runs: list[tuple[int, int]] = []
    place = 0
    while place < len(content) and len(runs) <= count:
        if content[place : place + 1].isdigit():
            start = place
            while content[place : place + 1].isdigit():
                place += 1
            runs.append((start, place))
        place += 1
    if not runs:
        return content
    start, stop = runs[count % len(runs)]
    return content[:start] + text + content[stop:]


@cache
def valid(name: str) -> bytes:
    with TemporaryDirectory() as folder:
        hostile.WRITERS[name](Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def check(path: Path) -> str:
    """Read a damaged file; anything but tensors within limits or a clean error fails."""
    try:
        read = read_tensors(path, limits=LIMITS)
    except CaptureError as error:
        told = str(error)
    else:
        return _sound(read)
    assert path.name in told
    assert told.isprintable()
    assert len(told) < 1000
    return "refused"


def _sound(read: object) -> str:
    assert isinstance(read, dict)
    assert read
    for name, tensor in read.items():
        assert isinstance(name, str)
        assert isinstance(tensor, Tensor)
        float(tensor.double().sum())  # every number can be touched
    assert sum(t.numel() * t.element_size() for t in read.values()) <= LIMITS.total_bytes
    return "read"


@pytest.fixture(scope="module", autouse=True)
def bounded() -> object:
    """All damaged files together take little memory and time."""
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 256_000  # kB
    assert time.process_time() - began < 120


@pytest.mark.parametrize("name", hostile.WRITERS)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    outcomes = set()

    @QUICK
    @given(damages())
    def run(damage: Callable[[bytes], bytes]) -> None:
        path = tmp_path / name
        path.write_bytes(damage(valid(name)))
        outcomes.add(check(path))

    run()
    assert "refused" in outcomes  # or nothing was damaged


@pytest.mark.parametrize(("name", "part"), [("a.pt", "data.pkl"), ("a.npz", "head.bias.npy")])
def test_damaged_members_of_sound_archives(tmp_path: Path, name: str, part: str) -> None:
    """The archive's checksums are right, so that the damage reaches what reads the member."""
    (tmp_path / "sound").write_bytes(valid(name))
    with zipfile.ZipFile(tmp_path / "sound") as sound:
        members = {m.filename: sound.read(m) for m in sound.infolist()}
    outcomes = set()

    @settings(QUICK, max_examples=500)
    @given(damages())
    def run(damage: Callable[[bytes], bytes]) -> None:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, damage(content) if member.endswith(part) else content)
        outcomes.add(check(path))

    run()
    assert outcomes == {"refused", "read"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "c"
    record = fedaudit.recording(folder, model="mlp", classes=5, lr=0.1)
    state = {"head.weight": torch.randn(5, 4), "head.bias": torch.randn(5)}
    record.broadcast(1, state)
    for client in ("good", "bad"):
        moved = {n: v + torch.randn_like(v) for n, v in state.items()}
        record.update(1, client, moved, kind="weights", metrics={"loss": 1.5})
    return folder


@pytest.mark.parametrize("damaged", ["update-bad-*", "broadcast*"])
def test_a_damaged_message_never_stops_the_others(
    recorded: Path, tmp_path: Path, damaged: str
) -> None:
    (path,) = (recorded / "round-000001").glob(damaged)
    sound = path.read_bytes()

    @settings(QUICK, max_examples=150)
    @given(damages())
    def run(damage: Callable[[bytes], bytes]) -> None:
        path.write_bytes(damage(sound))
        stored = StoredCapture(recorded)
        clients = [c.seen.client for c in observations(stored)]
        inspect(StoredCapture(recorded)).as_plain()
        if damaged.startswith("update"):
            assert "good" in clients
        assert len(clients) == 2 or stored.problems
        assert all(str(problem).isprintable() for problem in stored.problems)

    try:
        run()
    finally:
        path.write_bytes(sound)
    assert len(list(observations(StoredCapture(recorded)))) == 2


@QUICK
@given(damages())
def test_a_damaged_manifest(damage: Callable[[bytes], bytes]) -> None:
    with TemporaryDirectory() as folder:
        fedaudit.recording(folder, model="mlp", classes=5, lr=0.1, image_shape=(3, 8, 8))
        path = Path(folder) / "capture.json"
        path.write_bytes(damage(path.read_bytes()))
        told = "capture.json"
        try:
            inspect(StoredCapture(folder)).as_plain()
        except FedauditError as error:
            told = str(error)
        assert "capture.json" in told
