"""What several processes need is made by one of them, while the others wait for it."""

import contextlib
import hashlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from fedaudit.files.asset_store import cache_dir

WAIT = 600.0
"""Seconds after which a process makes it itself: who holds the turn may have been stopped."""


@contextlib.contextmanager
def in_turn(what: str, wait: float = WAIT) -> Iterator[None]:
    """Hold the turn at something inside the block, among this user's processes on this machine.

    Whoever comes second looks first whether it is there by now. Nothing but time depends on it:
    where no lock can be had, all make the same thing.

    Args:
        what: A name, such as a key or a path.
        wait: Seconds.
    """
    # In the user's own folder: a lock file in a folder of others might be a link of theirs.
    place = cache_dir() / "turns" / hashlib.sha256(what.encode()).hexdigest()[:24]
    lock = FileLock(place, timeout=wait, mode=0o600)
    with contextlib.suppress(OSError, NotImplementedError, Timeout):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
            lock.release()
