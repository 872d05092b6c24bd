"""The numbers of a gallery beside its templates, so that reports need nobody's face to be kept."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from fedaudit.core.errors import RunFolderError
from fedaudit.files import regular_file
from fedaudit.files.atomic import write_atomically
from fedaudit.scoring.identity import Gallery
from fedaudit.study.stored_values import read_as

_TENSORS = ("templates", "center")


def numbers_file(name: str) -> str:
    """Where the numbers of a gallery stand, by the name of the gallery or of its file."""
    return name.removesuffix(".age").removesuffix(".safetensors") + ".json"


def save_numbers(folder: Path, name: str, gallery: Gallery) -> None:
    """Keep what a gallery was calibrated to, unless just that is kept.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    bare = replace(gallery, templates=torch.empty(0), center=torch.empty(0))
    numbers = {key: value for key, value in asdict(bare).items() if key not in _TENSORS}
    path, content = folder / numbers_file(name), json.dumps(numbers, sort_keys=True).encode()
    if not path.is_file() or regular_file.read_bytes(path) != content:
        write_atomically(path, content)


def read_numbers(folder: Path, name: str) -> Gallery | None:
    """A gallery without templates, which compares nobody; None where no numbers were kept.

    Raises:
        RunFolderError: They are damaged.
    """
    path = folder / numbers_file(name)
    try:
        numbers: Any = regular_file.read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(numbers, dict):
        raise RunFolderError(f"{str(path)!r} is damaged: it is no table. Restore it from a backup.")
    return read_as(Gallery, numbers | dict.fromkeys(_TENSORS, torch.empty(0)), path)
