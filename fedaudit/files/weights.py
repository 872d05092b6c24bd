"""Read weights that other frameworks stored."""

import json
from math import prod
from pathlib import Path

import numpy as np
import torch
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
                stored = np.dtype(scheme["dtype"] if scheme else "<f4")
                count = prod(entry["shape"])
                values = np.frombuffer(data, stored, count, start).astype(np.float32)
                start += count * stored.itemsize
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
