"""LPIPS: the perceptual distance of Zhang et al. (CVPR 2018), with pinned backbone weights."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedaudit.core.errors import AssetError
from fedaudit.files import asset_store
from fedaudit.files.weights import convert_to_safetensors, read_array_pickle

Net = Literal["alex", "vgg"]

MIN_SIZE = 64
"""Smaller images are enlarged to this many pixels: at 32, three of AlexNet's five taps are 1×1."""

_BATCH = 32
# Indices of the convolutions in torchvision's `features`.
_CONVOLUTIONS = {
    "alexnet": ("AlexNet_0", (0, 3, 6, 8, 10)),
    "vgg16": ("VGG16_0", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
}


def lpips_distance(a: Tensor, b: Tensor, net: Net = "alex") -> Tensor:
    """LPIPS `[N]` of each pair; 0 for equal images, around 0.7 for unrelated ones; no gradient.

    Args:
        a: `[N, C, H, W]` in [0, 1]; one channel is repeated to three.
        b: Same shape as `a`.
        net: Backbone: "alex" (2 ms a pair of 64 px on one thread) or "vgg" (70 ms).

    Raises:
        ValueError: The shapes differ.
        AssetError: The backbone's weights are not available.
    """
    if a.shape != b.shape:
        raise ValueError(f"LPIPS compares images of one shape, not {a.shape} and {b.shape}")
    model = load_lpips(net)
    parts = [slice(i, i + _BATCH) for i in range(0, len(a), _BATCH)]
    with torch.no_grad():
        values = [
            model(_prepare(a[part]), _prepare(b[part]), normalize=True).flatten() for part in parts
        ]
    return torch.cat(values) if values else torch.empty(0)


def deep_features(images: Tensor) -> Tensor:
    """What AlexNet sees last, averaged over places: `[N, 256]` of `[N, 1 or 3, H, W]` in [0, 1].

    Raises:
        AssetError: The weights are not available.
    """
    model: Any = load_lpips("alex")
    with torch.no_grad():
        taps = [
            model.net(model.scaling_layer(2 * _prepare(part) - 1))[-1].mean((2, 3))
            for part in torch.split(images, _BATCH)
        ]
    return torch.cat(taps)


@cache
def load_lpips(net: Net = "alex") -> nn.Module:
    """The frozen network, once a process; `model(a, b, normalize=True)` takes [0, 1] images."""
    import lpips  # noqa: PLC0415 - seconds, and only who scores needs it

    weights = _read(asset_store.path(f"lpips_{net}"), net)
    # pnet_rand builds the backbone without torchvision's download; the weights follow.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips 0.1.4 calls torchvision in its old way
        model: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    backbone = model.net
    assert isinstance(backbone, nn.Module)
    # lpips keeps torchvision's indices: slice2.3.weight is features.3.weight.
    state = {key: weights["features." + key.split(".", 1)[1]] for key in backbone.state_dict()}
    backbone.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _read(file: Path, net: Net) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise AssetError(
            f"{file} is not in the safetensors format: {error}. Unset "
            f"FEDAUDIT_ASSET_LPIPS_{net.upper()} if you set it, and run: "
            f"fedaudit assets fetch lpips_{net}"
        ) from error


def convert_checkpoint(folder: Path) -> None:
    """Replace the pickled checkpoint in `folder` by safetensors, when it is unpacked."""
    convert_to_safetensors(folder, "*.ckpt", _read_flax)


def _read_flax(file: Path) -> dict[str, Tensor]:
    """Flax's tree as torchvision's flat names; kernels HWIO → OIHW."""
    tree = read_array_pickle(file)
    root, indices = _CONVOLUTIONS[file.stem]
    state = {}
    for i, index in enumerate(indices):
        layer = tree[root][f"Conv_{i}"]
        state[f"features.{index}.weight"] = _kernel(layer["kernel"])
        state[f"features.{index}.bias"] = torch.tensor(layer["bias"])
    for i in range(5):
        state[f"lin{i}.model.1.weight"] = _kernel(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return state


def _kernel(array: np.ndarray) -> Tensor:
    return torch.tensor(array).permute(3, 2, 0, 1).contiguous()


def _prepare(images: Tensor) -> Tensor:
    """To three channels, and to at least `MIN_SIZE` pixels."""
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if min(images.shape[-2:]) < MIN_SIZE:
        images = interpolate(images, (MIN_SIZE, MIN_SIZE), mode="bilinear", antialias=True)
    return images
