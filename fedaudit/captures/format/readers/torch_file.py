"""Read `.pt` and `.pth` that `torch.save` wrote: tensors only, and no code runs."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedaudit.captures.format.readers.limits import (
    Limits,
    check_copies,
    check_name,
    check_shape,
    check_total,
)
from fedaudit.captures.format.readers.torch_pickle import View, describe
from fedaudit.captures.format.readers.zip_archive import open_zip, read_member
from fedaudit.core.errors import CaptureError

_DESCRIPTION = 16 << 20
WRAPPERS = ("state_dict", "model_state_dict", "model", "weights", "params", "net", "gradients")
"""Keys under which checkpoints keep the state dict (NVFlare's global model: "model")."""
_HOW = (
    "Save it as torch.save(state_dict, …) or with safetensors.torch.save_file, from a program that "
    "you trust"
)


def read(path: Path, limits: Limits) -> dict[str, Tensor]:
    """A state dict; or a list of tensors, named `arr_0`, `arr_1` … as in `.npz`.

    Raises:
        CaptureError: The file is damaged, would need code to be run, or goes beyond `limits`.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise CaptureError(
                path,
                "it is no archive as torch.save writes since 1.6: an old file, or a bare pickle, "
                f"which can run any program and is not loaded. {_HOW}",
            )
    with open_zip(path, limits) as archive:
        names = archive.namelist()
        root = next((n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")), None)
        if root is None or root.count("/") != 1:
            raise CaptureError(path, f"the archive holds no state dict. {_HOW}")
        if any(n.startswith((f"{root}code/", f"{root}constants.pkl")) for n in names):
            raise CaptureError(path, f"it is a TorchScript program, not an update. {_HOW}")
        if f"{root}byteorder" in names and _order(path, archive, root) != b"little":
            raise CaptureError(path, "its numbers are big-endian. Save it on this computer's kind")
        description = describe(
            path, read_member(path, archive, f"{root}data.pkl", at_most=_DESCRIPTION)
        )
        views = _state(path, description)
        check_total(path, len(views), 0, limits)
        total = 0
        for name, view in views.items():
            check_name(path, name, limits)
            total += check_shape(path, name, view.shape, view.storage.dtype.itemsize, limits)
        check_total(path, len(views), total, limits)
        check_copies(path, total, sum(m.file_size for m in archive.infolist()), limits)
        storages: dict[str, Tensor] = {}
        return {
            name: _tensor(path, name, view, archive, root, storages) for name, view in views.items()
        }


def _order(path: Path, archive: zipfile.ZipFile, root: str) -> bytes:
    return read_member(path, archive, f"{root}byteorder", at_most=16).strip()


def _state(path: Path, description: Any) -> Mapping[str, View]:
    """The state dict in what was saved."""
    if isinstance(description, list | tuple) and description and _all_views(description):
        return {f"arr_{place}": view for place, view in enumerate(description)}
    if isinstance(description, dict):
        if description and _all_views(description.values()):
            return description
        for key in WRAPPERS:
            inner = description.get(key)
            if isinstance(inner, dict) and inner and _all_views(inner.values()):
                return inner
        other = next((k for k, v in description.items() if not isinstance(v, View)), None)
        if other is not None:
            raise CaptureError(
                path,
                f"it is a {type(description[other]).__name__}, not a tensor. {_HOW}",
                key=str(other)[:80],
            )
    raise CaptureError(path, f"it holds no state dict. {_HOW}")


def _all_views(values: Any) -> bool:
    return all(isinstance(value, View) for value in values)


def _tensor(
    path: Path,
    name: str,
    view: View,
    archive: zipfile.ZipFile,
    root: str,
    storages: dict[str, Tensor],
) -> Tensor:
    """A tensor of its member, which must be as long as the description says."""
    storage = view.storage
    member = f"{root}data/{storage.key}"
    size = storage.count * storage.dtype.itemsize
    if member not in archive.namelist() or archive.getinfo(member).file_size != size:
        raise CaptureError(
            path,
            f"the archive does not hold the {size:,} bytes of it: it was cut off or changed",
            key=name,
        )
    if view.shape and 0 not in view.shape:
        last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True))
    else:
        last = view.offset - (0 in view.shape)
    numbers = 1
    for n in view.shape:
        numbers *= n
    # Views of one number in many places would take far more memory than the file.
    if last >= storage.count or numbers > storage.count:
        raise CaptureError(path, "it reaches beyond its storage", key=name)
    if storage.key not in storages:
        content = bytearray(read_member(path, archive, member))
        flat = (
            torch.frombuffer(content, dtype=storage.dtype)
            if content
            else torch.empty(0, dtype=storage.dtype)
        )
        storages[storage.key] = flat
    flat = storages[storage.key]
    if flat.dtype != storage.dtype:
        raise CaptureError(path, "two tensors disagree about the type of their storage", key=name)
    return torch.as_strided(flat, view.shape, view.stride, view.offset)
