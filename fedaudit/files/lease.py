"""Leases: which of several processes, on one machine or on many, does what in a shared folder.

    .leases/<holder>.holder   one process: where it runs; touched all the time, its heartbeat
    .leases/<holder>.alive    locked by that process; the system unlocks it when it dies
    .leases/<key>.<n>         the n-th lease of a key; it names its holder

A lease is a link to its holder's file, which only one process can make, on network file systems
too. It ends with its holder: when that leaves, when the system has unlocked what it had locked
(seen on the same machine, at once), or when its heartbeat stands still. Clocks need not agree: who
waits sees whether the heartbeat changes, and counts its own seconds. An ended lease is succeeded by
the next number and not deleted, so that of two who see it end only one succeeds it.
"""

import contextlib
import json
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fedaudit.core.errors import RunFolderError
from fedaudit.files import regular_file
from fedaudit.files.atomic import storage_errors, write_atomically

FOLDER = ".leases"
UPKEEP = "@folder"
"""The lease of whoever changes what all share who work in the folder."""

BEAT = 5.0
"""Seconds between two heartbeats."""

SILENCE = 60.0
"""Seconds without a heartbeat after which a holder's leases have ended.

A network file system may show a change late, by default up to 60 s of attributes that are not
asked for again; opening a file, as is done here, asks.
"""

_HOLDER = re.compile(r"[0-9a-f]{32}")


@dataclass
class _Sight:
    """What was last seen of a holder, and for how long it has stood still."""

    beat: int
    seen: float
    still: float = 0.0


class Leases:
    """The leases of this process in a folder; made by `holding`."""

    def __init__(self, folder: Path) -> None:
        self.holder = uuid.uuid4().hex
        self._folder = folder / FOLDER
        self._mine: dict[str, int] = {}
        self._sights: dict[str, _Sight] = {}
        self._left = threading.Event()
        self._alive: FileLock | None = None

    def take(self, key: str) -> bool:
        """Take the lease of a key; False where another process holds it.

        Raises:
            StorageError: The folder cannot be written.
        """
        if key in self._mine:
            return True
        number = 1
        while self._exists(key, number):
            if not self._has_ended(key, number):
                return False
            number += 1
        path = self._path(key, number)
        with storage_errors(path):
            try:
                self._create(path)
            except FileExistsError:
                return False
        self._mine[key] = number
        return True

    def release(self, key: str) -> None:
        """Give a lease back, for anybody to take."""
        number = self._mine.pop(key, 0)
        if number and not self._exists(key, number + 1):
            self._path(key, number).unlink(missing_ok=True)

    @contextlib.contextmanager
    def exclusive(self, key: str) -> Iterator[None]:
        """Hold a lease inside the block; it waits until nobody else does."""
        while not self.take(key):
            time.sleep(0.05)
        try:
            yield
        finally:
            self.release(key)

    def others(self) -> tuple[str, ...]:
        """Who else works in the folder, in words: a process and its machine."""
        words = []
        for path in sorted(self._folder.glob("*.holder")):
            if path.stem != self.holder and not self._is_gone(path.stem, path):
                facts = _facts(path)
                words.append(f"process {facts.get('process')} on {facts.get('host')}")
        return tuple(words)

    def _create(self, path: Path) -> None:
        """Create a lease that names this process, unless there is one."""
        mine = self._folder / f"{self.holder}.holder"
        try:
            os.link(mine, path)
        except FileExistsError:
            raise
        except OSError:  # the file system has no links; then the lease is empty for a moment
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(mine.read_bytes())

    def _path(self, key: str, number: int) -> Path:
        return self._folder / f"{key}.{number}"

    def _exists(self, key: str, number: int) -> bool:
        return os.path.lexists(self._path(key, number))

    def _has_ended(self, key: str, number: int) -> bool:
        path = self._path(key, number)
        if path.is_symlink():
            raise RunFolderError(
                f"{str(path)!r} is a link, and no lease of fedaudit is. Delete it if you trust the "
                "folder."
            )
        if not path.exists():
            return True
        holder = str(_facts(path).get("holder"))
        if not _HOLDER.fullmatch(holder):  # its holder is about to write it, or died of it
            return self._is_silent(path)
        return self._is_gone(holder, self._folder / f"{holder}.holder")

    def _is_gone(self, holder: str, path: Path) -> bool:
        if holder == self.holder:
            return False
        facts = _facts(path)
        if not facts:
            return True
        alive = self._folder / f"{holder}.alive"
        if facts.get("machine") == machine() and alive.exists() and not _is_locked(alive):
            return True
        return self._is_silent(path)

    def _is_silent(self, path: Path) -> bool:
        """Whether a heartbeat has stood still for too long, as seen from here."""
        try:
            with path.open("rb") as file:  # opened, so that a network file system looks again
                beat = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return True
        now = time.monotonic()
        sight = self._sights.get(path.name)
        if sight is None or sight.beat != beat:
            self._sights[path.name] = _Sight(beat, now)
            return False
        # A step counts little: this process, and the other with it, may have been stopped.
        sight.still += min(now - sight.seen, BEAT)
        sight.seen = now
        return sight.still > SILENCE

    def _enter(self) -> None:
        if self._folder.is_symlink():
            raise RunFolderError(
                f"{str(self._folder)!r} is a link, and a run would write where it leads. Delete it "
                "if you trust the folder."
            )
        facts = {
            "holder": self.holder,
            "machine": machine(),
            "host": platform.node(),
            "process": os.getpid(),
        }
        with storage_errors(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = FileLock(self._folder / f"{self.holder}.alive", timeout=0, mode=0o600)
            with contextlib.suppress(NotImplementedError):  # then the heartbeat alone counts
                lock.acquire()
                self._alive = lock
        write_atomically(self._folder / f"{self.holder}.holder", json.dumps(facts).encode())
        threading.Thread(target=self._beat, daemon=True, name="lease").start()

    def _beat(self) -> None:
        while not self._left.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._folder / f"{self.holder}.holder")

    def _leave(self) -> None:
        """Give everything back; whoever leaves last also deletes what the dead left."""
        self._left.set()
        for key in tuple(self._mine):
            self.release(key)
        if self._alive:
            self._alive.release()
        for suffix in ("holder", "alive"):
            (self._folder / f"{self.holder}.{suffix}").unlink(missing_ok=True)
        if not self.others():
            for leftover in self._folder.glob("*"):
                leftover.unlink(missing_ok=True)
            self._folder.rmdir()


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[Leases]:
    """Be one of those who work in a folder; all leases end with the block.

    Raises:
        StorageError: The folder cannot be written.
        RunFolderError: Its leases lead elsewhere.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, holding(Path(name)) as ours:
        ...     with holding(Path(name)) as theirs:
        ...         ours.take("cell"), theirs.take("cell"), theirs.take("other")
        (True, False, True)
    """
    leases = Leases(folder)
    leases._enter()
    try:
        yield leases
    finally:
        with contextlib.suppress(OSError):  # must not hide why the block ended
            leases._leave()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one who works in a folder; others wait until the block ends.

    Raises:
        RunFolderError: Another process works in it.
    """
    with holding(folder) as leases, leases.exclusive(UPKEEP):
        if others := leases.others():
            raise RunFolderError(
                f"another fedaudit run ({others[0]}) works in {str(folder)!r}. Wait for it, or "
                "stop it."
            )
        yield


def machine() -> str:
    """The running system: the same for all its processes, in containers too, until it restarts."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{platform.node()}-{uuid.getnode():x}"


def _facts(path: Path) -> dict[str, object]:
    try:
        facts = regular_file.read_json(path)
    except (OSError, RunFolderError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_locked(path: Path) -> bool:
    lock = FileLock(path, timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False
