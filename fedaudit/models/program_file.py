"""Read a network that was saved as a program: TorchScript or torch.export, never a pickle."""

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from fedaudit.core.errors import UsageError, first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SUFFIXES = frozenset({".ts", ".pt", ".pt2"})
T = TypeVar("T")


def read_program(path: Path, extra: dict[str, Any]) -> "nn.Module | ExportedProgram":
    """The program in a file, on the CPU, TorchScript in evaluation mode.

    Args:
        path: `.pt2` of `torch.export.save`, `.ts` or `.pt` of `torch.jit.save`.
        extra: Names of files inside it; their contents are put here.

    Raises:
        UsageError: There is no such file, it is of neither kind, or it holds pickled objects.
    """
    if not path.is_file():
        raise UsageError(f"there is no model file {path}. Check the path.")
    try:
        return load_exported(path, extra) if path.suffix == ".pt2" else load_script(path, extra)
    except UsageError:
        raise
    except Exception as error:  # torch raises whatever its readers raise
        # What torch says of a state dict ("constants.pkl … corrupted") leads astray.
        reason = (
            "torch.save wrote it, and it holds no program" if _is_saved(path) else first_line(error)
        )
        raise UsageError(
            f"cannot load {path}: {reason}. A .pt or .ts file must come from "
            "torch.jit.save and a .pt2 file from torch.export.save; a bare state dict does not say "
            "what network it belongs to, so name its factory as package.module:factory instead."
        ) from error


def _is_saved(path: Path) -> bool:
    """Whether a file is what `torch.save` writes, such as a state dict."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return "data.pkl" in names and "constants.pkl" not in names


def load_script(path: Path, extra: dict[str, Any]) -> nn.Module:
    """A TorchScript module, by its own reader in C++: it builds tensors and script classes only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
            str(path), map_location="cpu", _extra_files=extra
        )
    return module.eval()


def load_exported(path: Path, extra: dict[str, Any]) -> "ExportedProgram":
    """A torch.export program, refused where reading it would run pickles or native code."""
    try:
        records = torch._C.PyTorchFileReader(str(path)).get_all_records()
    except RuntimeError:
        records = []  # the format before torch 2.8, with none of these but pickles; see below
    for record in records:
        folder, _, name = record.rpartition("/")
        inert = not folder.endswith("constants") or name.startswith("tensor_")
        if "aotinductor" in record or not (inert or name.endswith(".json")):
            raise UsageError(
                f"{path} holds {record!r}, compiled code or a pickled object, and is refused. "
                "Export the plain network with torch.export.save."
            )
    return _without_pickles(lambda: torch.export.load(path, extra_files=extra))


def _without_pickles(load: Callable[[], T]) -> T:
    """What a reader gives that asks for unrestricted unpickling, which this switch overrules."""
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        return load()
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
