"""Leases among processes: one holder at a time, and an end with their holder."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedaudit.core.errors import RunFolderError, StorageError
from fedaudit.files import lease
from fedaudit.files.lease import FOLDER, Leases, holding


@contextmanager
def another(folder: Path, do: Callable[[Leases], None]) -> Iterator[int]:
    """Another process that works in the folder: it does something, and then stays."""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        with holding(folder) as leases:
            do(leases)
            os.write(done, b"x")
            time.sleep(600)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"x"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(done)


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with holding(tmp_path) as ours, holding(tmp_path) as theirs:
        assert ours.take("a")
        assert ours.take("a")
        assert not theirs.take("a")
        assert theirs.others() == (f"process {os.getpid()} on {os.uname().nodename}",)
        ours.release("a")
        assert theirs.take("a")
        assert not ours.take("a")
    assert not (tmp_path / FOLDER).exists()


def test_many_processes_share_the_keys_out(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(50)]
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            with holding(tmp_path) as leases:
                mine = [key for key in keys if leases.take(key)]
                (tmp_path / f"{number}.txt").write_text(" ".join(mine))
                while len(list(tmp_path.glob("*.txt"))) < 4:
                    time.sleep(0.01)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    taken = [key for file in tmp_path.glob("*.txt") for key in file.read_text().split()]
    assert sorted(taken) == sorted(keys)


def test_the_lease_of_a_killed_process_ends_at_once(tmp_path: Path) -> None:
    with holding(tmp_path) as ours:
        with another(tmp_path, lambda theirs: assert_taken(theirs, "a")):
            assert not ours.take("a")
        assert ours.others() == ()
        assert ours.take("a")
        assert (tmp_path / FOLDER / "a.2").exists()  # the first stays: two may have seen it end
        with holding(tmp_path) as third:
            assert not third.take("a")


def test_the_lease_of_a_stopped_process_ends_when_its_heart_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "SILENCE", 0.5)
    with holding(tmp_path) as ours, another(tmp_path, lambda it: assert_taken(it, "a")) as child:
        for _ in range(15):
            assert not ours.take("a")
            time.sleep(0.06)  # longer than the silence in all: it lives
        os.kill(child, signal.SIGSTOP)
        stopped = time.monotonic()
        while not ours.take("a"):
            assert time.monotonic() - stopped < 10
            time.sleep(0.02)
        assert time.monotonic() - stopped > 0.4
        os.kill(child, signal.SIGCONT)


def test_alone_or_not_at_all(tmp_path: Path) -> None:
    with lease.alone(tmp_path):
        pass
    with another(tmp_path, lambda theirs: None) as child:
        wrong = rf"another fedaudit run \(process {child} on .* works in"
        with pytest.raises(RunFolderError, match=wrong), lease.alone(tmp_path):
            pass
    with lease.alone(tmp_path):
        pass


def test_clocks_need_not_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat counts by its change, whatever time it shows, here 1970 and 2100."""
    monkeypatch.setattr(lease, "SILENCE", 0.0)
    monkeypatch.setattr(lease, "BEAT", 1e9)  # by hand below
    with holding(tmp_path) as ours, holding(tmp_path) as theirs:
        assert theirs.take("a")
        for moment in (0, 4e9, 7, 3e9):
            os.utime(tmp_path / FOLDER / f"{theirs.holder}.holder", (moment, moment))
            assert not ours.take("a")


def test_without_links_leases_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with holding(tmp_path) as ours, holding(tmp_path) as theirs:
        assert ours.take("a")
        assert not theirs.take("a")


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with holding(tmp_path) as ours:
        monkeypatch.setattr(os, "link", full)
        monkeypatch.setattr(os, "open", full)
        with pytest.raises(StorageError, match="disk is full"):
            ours.take("a")
        monkeypatch.undo()


def assert_taken(leases: Leases, key: str) -> None:
    assert leases.take(key)
