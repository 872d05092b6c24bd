"""The second judge of identity, differentiable layer by layer, so that its heat can be drawn.

dlib's ResNet (King 2017), trained on about three million photos of 7,485 people, in the
quantized form of face-api.js. It shares nothing with any audited model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import normalize

from fedaudit.files import asset_store
from fedaudit.files.weights import read_weights
from fedaudit.scoring.framing import WHOLE, Frame
from fedaudit.scoring.identity import Embed, average_with_mirror

INPUT_SIZE = 150
DIM = 128

_BATCH = 16
_MEAN = (122.782, 117.001, 104.298)
# (name, channels in, channels out, whether the block halves the map)
_BLOCKS = (
    ("conv32_1", 32, 32, False),
    ("conv32_2", 32, 32, False),
    ("conv32_3", 32, 32, False),
    ("conv64_down", 32, 64, True),
    ("conv64_1", 64, 64, False),
    ("conv64_2", 64, 64, False),
    ("conv64_3", 64, 64, False),
    ("conv128_down", 64, 128, True),
    ("conv128_1", 128, 128, False),
    ("conv128_2", 128, 128, False),
    ("conv256_down", 128, 256, True),
    ("conv256_1", 256, 256, False),
    ("conv256_2", 256, 256, False),
    ("conv256_down_out", 256, 256, True),
)


class _Block(nn.Module):
    """A residual block without normalization; its scale layers are folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.down, self.extra = down, outputs - inputs
        stride, padding = (2, 0) if down else (1, 1)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(functional.relu(self.conv1(x)))
        if self.down:
            x = functional.avg_pool2d(x, 2)
            # As in dlib: the smaller map is padded at the end, missing channels are zeros.
            rows, columns = x.shape[2] - y.shape[2], x.shape[3] - y.shape[3]
            y = functional.pad(y, (0, columns, 0, rows))
            x = functional.pad(x, (0, 0, 0, 0, 0, self.extra))
        return functional.relu(x + y)


class RecognitionNet(nn.Module):
    """`[N, 3, 150, 150]` in [0, 1] → `[N, 128]`, not normalized; differentiable."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        self.blocks = nn.Sequential(*(_Block(i, o, down) for _, i, o, down in _BLOCKS))
        self.fc = nn.Linear(256, DIM, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of RGB faces; see the class."""
        x = (images * 255 - self.mean) / 255
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        features: Tensor = self.fc(self.blocks(x).mean((2, 3)))
        return features


@dataclass(frozen=True)
class Embedder:
    """Images in, unit vectors out; the cosine of two of them says how alike two faces are.

    Attributes:
        network: Frozen, in evaluation mode.
        name: For reports.
    """

    network: nn.Module
    name: str = "dlib ResNet (face-api 1.7.15)"

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors `[N, 128]`, without gradient, of `images [N, 1 or 3, H, W]` in [0, 1]."""
        if len(images) == 0:
            return torch.empty(0, DIM)
        parts = torch.split(images, _BATCH)
        with torch.no_grad():
            return torch.cat([normalize(self.network(prepare(part))) for part in parts])

    def frame(self, photos: Tensor) -> Frame:
        """All of a photo: its training crops are looser than an aligned square."""
        del photos
        return WHOLE

    def within(self, frame: Frame) -> Embed:
        """Unit vectors of whole images, each averaged with its mirror image."""
        del frame
        return average_with_mirror(self.embed)


@cache
def load_embedder() -> Embedder:
    """The embedder, once a process; an `AssetError` where its weights are missing or damaged."""
    manifest = asset_store.path("face_embedder")
    network = RecognitionNet()
    network.load_state_dict(_fuse(read_weights(manifest)))
    # Channels last is a fifth faster on CPUs.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Embedder(network.eval().requires_grad_(False))


def _fuse(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of `RecognitionNet`: names translated, each scale layer folded into its convolution."""
    state = {"fc.weight": weights["fc"].T.contiguous()}

    def put(source: str, target: str) -> None:
        scale = weights[f"{source}/scale/weights"]
        kernel = weights[f"{source}/conv/filters"].permute(3, 2, 0, 1)  # HWIO → OIHW
        state[f"{target}.weight"] = kernel * scale[:, None, None, None]
        bias = weights[f"{source}/conv/bias"] * scale + weights[f"{source}/scale/biases"]
        state[f"{target}.bias"] = bias

    put("conv32_down", "stem")
    for i, (name, *_) in enumerate(_BLOCKS):
        put(f"{name}/conv1", f"blocks.{i}.conv1")
        put(f"{name}/conv2", f"blocks.{i}.conv2")
    return state


def prepare(images: Tensor) -> Tensor:
    """`[N, 1 or 3, H, W]` in [0, 1] → `[N, 3, 150, 150]`, as `Embedder.embed` feeds its network."""
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if images.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
        images = functional.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="bilinear")
    return images.contiguous(memory_format=torch.channels_last)
