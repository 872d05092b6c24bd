"""A cache of learned tensors, keyed by a hash of everything that decides them.

Each file says what it holds and from whose photos it was made: `fedaudit cache ls` lists them.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedaudit.core.errors import RunFolderError, StorageError
from fedaudit.files.asset_store import cache_dir
from fedaudit.files.atomic import write_atomically
from fedaudit.files.regular_file import read_tensors
from fedaudit.files.taking_turns import in_turn

VERSION = 1
"""To be raised where the same cause gives another result."""


def key_of(tensors: Mapping[str, Tensor], *facts: object) -> str:
    """Cache key: a hash of the tensors and facts that decide what is learned."""
    digest = hashlib.sha256(repr((VERSION, *facts)).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:24]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(repr(file.relative_to(path).as_posix()).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kept:
    """An entry of the user's cache.

    Attributes:
        key: Its name.
        path: Where it lies.
        size: Bytes.
        what: What was learned; "unknown" of a file that an earlier version kept.
        photos: Folder of the user's photos that it was made from; "" for none.
        made: ISO date.
    """

    key: str
    path: Path
    size: int
    what: str
    photos: str
    made: str


def learned_dir() -> Path:
    """Where learned tensors are kept if nothing else is said."""
    return cache_dir() / "learned"


def list_entries() -> tuple[Kept, ...]:
    """What the user's cache folder holds of learned tensors, the newest last."""
    files = [(file, file.stat()) for file in learned_dir().glob("*.safetensors") if file.is_file()]
    by_age = sorted(files, key=lambda each: (each[1].st_mtime, each[0].name))
    return tuple(_entry(file, facts.st_size, facts.st_mtime) for file, facts in by_age)


def _entry(file: Path, size: int, time: float) -> Kept:
    try:
        with safe_open(file, framework="pt") as header:
            about = header.metadata() or {}
    except (OSError, SafetensorError):
        about = {"what": "damaged"}
    date = datetime.fromtimestamp(time, UTC).date().isoformat()
    what, photos = about.get("what", "unknown"), about.get("photos", "")
    return Kept(file.stem, file, size, what, photos, date)


def load_or_learn(
    key: str,
    learn: Callable[[], Mapping[str, Tensor]],
    cache: str | None,
    *,
    what: str,
    photos: str | None = None,
    valid: Collection[str] = (),
) -> dict[str, Tensor]:
    """Tensors from the cache; where it has none, they are learned and stored.

    Args:
        key: From `key_of`.
        learn: Trains; tensors by name.
        cache: A folder, None for the user's cache folder, or "off" to keep nothing.
        what: What is learned, in a few words, for the list of what is kept.
        photos: Folder of the user's photos that it is made from; None for none.
        valid: Names that a kept file must have; one without them is learned anew.

    Raises:
        StorageError: The folder cannot be written.
    """
    if cache == "off":
        return dict(learn())
    home = Path(cache).expanduser() if cache else learned_dir()
    file = home / f"{key}.safetensors"
    if entry := _kept(file, valid):
        return entry
    with in_turn(str(file)):  # workers need the same thing at the same time
        if entry := _kept(file, valid):
            return entry
        tensors = {name: value.contiguous() for name, value in learn().items()}
        try:
            home.mkdir(parents=True, exist_ok=True)
            about = {
                "what": what,
                "photos": str(Path(photos).expanduser().absolute()) if photos else "",
            }
            write_atomically(file, save(tensors, about))
        except (OSError, StorageError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            raise StorageError(
                f"cannot keep what was learned in {home}: {getattr(cause, 'strerror', error)}. "
                'Make room, or set the attack\'s cache to another folder, or to "off".'
            ) from error
    return tensors


def _kept(file: Path, valid: Collection[str]) -> dict[str, Tensor]:
    """What a file holds; nothing where it is missing, damaged, or lacks a name of `valid`."""
    if not file.exists():
        return {}
    try:
        # Cloned, for memory that is aligned as if it had just been learned.
        entry = {name: value.clone() for name, value in read_tensors(file)[0].items()}
    except (OSError, RunFolderError):  # a damaged file is replaced
        return {}
    return entry if set(valid) <= set(entry) else {}
