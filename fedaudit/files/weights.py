"""Weights that other frameworks stored: TensorFlow.js, pickles of arrays; conversion of both."""

import json
import pickle
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from fedaudit.core.errors import AssetError


def read_weights(manifest: Path) -> dict[str, Tensor]:
    """The tensors of a quantized TensorFlow.js model, as float32.

    Args:
        manifest: Its `…-weights_manifest.json`; the `.bin` files lie beside it.

    Raises:
        AssetError: The files do not fit each other.
    """
    weights = {}
    try:
        for group in json.loads(manifest.read_text()):
            data = b"".join((manifest.parent / Path(p).name).read_bytes() for p in group["paths"])
            start = 0
            for entry in group["weights"]:
                scheme = entry.get("quantization")
                dtype = np.dtype(scheme["dtype"] if scheme else "<f4")
                count = prod(entry["shape"])
                values = np.frombuffer(data, dtype, count, start).astype(np.float32)
                start += count * dtype.itemsize
                if scheme:
                    values = values * np.float32(scheme["scale"]) + np.float32(scheme["min"])
                weights[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
            if start != len(data):
                raise ValueError(f"{len(data)} bytes, {start} described")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{manifest.name} and its weights do not fit each other: {error}. "
            "Run: fedaudit assets fetch face_embedder"
        ) from error
    return weights


def convert_to_safetensors(
    folder: Path, pattern: str, read: Callable[[Path], Mapping[str, Tensor]]
) -> None:
    """Replace the one file of a folder that fits `pattern` by its tensors as safetensors.

    Args:
        folder: Of the unpacked asset.
        pattern: Glob pattern.
        read: Reads the file.

    Raises:
        AssetError: It is not the expected network.
    """
    (file,) = folder.glob(pattern)
    try:
        state = read(file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise AssetError(f"{file.name} is not the expected network: {error}") from error
    save_file(dict(state), file.with_suffix(".safetensors"))
    file.unlink()


def read_array_pickle(file: Path) -> Mapping[str, Any]:
    """A pickled tree of NumPy arrays, read without running anything.

    Raises:
        AssetError: The pickle wants anything but arrays and plain containers.
    """
    try:
        with file.open("rb") as stream:
            tree = _ArrayUnpickler(stream).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as error:
        raise AssetError(f"refused to read a checkpoint: {error}.") from error
    if not isinstance(tree, Mapping):
        raise AssetError(f"a checkpoint holds {type(tree).__name__}, not named arrays.")
    return tree


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        classes = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        }
        if (module, name) not in classes:
            raise pickle.UnpicklingError(f"it wants to import {module}.{name}")
        return classes[module, name]


def _reconstruct(kind: object, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What NumPy calls to start a pickled array, whatever NumPy's version names it."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("it wants to build something other than an array")
    return np.empty(shape, np.dtype(code.decode()))
