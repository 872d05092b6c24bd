"""A cache of learned tensors, keyed by a hash of everything that decides them."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from fedaudit.core.errors import StorageError
from fedaudit.files.asset_store import cache_dir
from fedaudit.files.atomic import write_atomically

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


def load_or_learn(
    key: str,
    learn: Callable[[], Mapping[str, Tensor]],
    cache: str | None,
    *,
    valid: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Tensors from the cache; where it has none, they are learned and stored.

    Args:
        key: From `key_of`.
        learn: Trains; tensors by name.
        cache: A folder, None for the user's cache folder, or "off" to keep nothing.
        valid: Names that a kept file must have; one without them is learned anew.

    Raises:
        StorageError: The folder cannot be written.
    """
    if cache == "off":
        return dict(learn())
    home = Path(cache).expanduser() if cache else cache_dir() / "learned"
    file = home / f"{key}.safetensors"
    if file.exists():
        try:
            stored = load_file(file)
        except Exception:  # safetensors' own error type is not public; a damaged file is replaced
            stored = {}
        if stored and set(valid) <= set(stored):
            return stored
    learned = {name: value.contiguous() for name, value in learn().items()}
    try:
        home.mkdir(parents=True, exist_ok=True)
        write_atomically(file, save(learned))  # workers may learn the same thing at the same time
    except (OSError, StorageError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        raise StorageError(
            f"cannot keep what was learned in {home}: {getattr(cause, 'strerror', error)}. Make "
            'room, or set the attack\'s cache to another folder, or to "off".'
        ) from error
    return learned
