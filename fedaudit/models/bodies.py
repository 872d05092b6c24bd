"""Bodies: images in [0, 1] → feature maps. GroupNorm as a rule, so that no image sees another.

Batch norm couples the images of a batch, which DP-SGD's per-sample gradients cannot have, and
which hides from an attack that a batch gradient is the mean of per-image gradients. Bodies
that can have it say so.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

Norm = Literal["batch", "group", "none"]


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm with groups of eight channels, or a few more where eight do not divide them."""
    groups = next(n for n in range(max(1, channels // 8), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, affine=affine)


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, GroupNorm or nothing."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return group_norm(channels) if norm == "group" else nn.Identity()


class Standardize(nn.Module):
    """[0, 1] → [-1, 1], inside the model, so that nobody outside handles normalized images."""

    def forward(self, images: Tensor) -> Tensor:
        """`[N, C, H, W]` in [0, 1] → [-1, 1]."""
        return images * 2 - 1


class Residual(nn.Module):
    """Two 3×3 convolutions with a shortcut, as in ResNet's basic block (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm = "group") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm_layer(norm, outputs)
        self.act1 = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm_layer(norm, outputs)
        self.act2 = nn.PReLU(outputs)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H/stride, W/stride]`."""
        y = self.act1(self.norm1(self.conv1(x)))
        maps: Tensor = self.act2(self.norm2(self.conv2(y)) + self.shortcut(x))
        return maps


def residual_body(widths: tuple[int, ...] = (24, 48, 96), norm: Norm = "group") -> nn.Sequential:
    """A small ResNet: a stem at full resolution, then one block of stride 2 a width."""
    layers: list[nn.Module] = [
        Standardize(),
        nn.Conv2d(3, widths[0], 3, 1, 1, bias=False),
        norm_layer(norm, widths[0]),
        nn.PReLU(widths[0]),
    ]
    channels = pairwise((widths[0], *widths))
    return nn.Sequential(*layers, *(Residual(a, b, 2, norm) for a, b in channels))


def smooth_body(*, standardize: bool = True) -> nn.Sequential:
    """Three sigmoid convolutions, those of Zhu et al.'s LeNet (2019): the easiest to invert."""
    return nn.Sequential(
        Standardize() if standardize else nn.Identity(),
        nn.Conv2d(3, 12, 5, 2, 2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, 2, 2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, 1, 2),
        nn.Sigmoid(),
    )


class _GroupNormBlock(nn.Module):
    """ResNet's basic block with GroupNorm and without in-place sums, as Opacus' hooks need."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        *_: object,  # what ResNet also passes: groups, dilation, norm layer
        **__: object,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = group_norm(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = group_norm(outputs)
        self.downsample = nn.Identity() if downsample is None else downsample

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H/stride, W/stride]`."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        maps: Tensor = self.relu(y + self.downsample(x))
        return maps


def resnet18_body() -> nn.Sequential:
    """ResNet-18 of torchvision up to its last feature map, with GroupNorm, random weights."""
    from torchvision.models.resnet import ResNet  # noqa: PLC0415 - slow

    network = ResNet(_GroupNormBlock, [2, 2, 2, 2], norm_layer=group_norm)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # Opacus' hooks need the inputs that in-place layers overwrite
    return nn.Sequential(Standardize(), *list(network.children())[:-2])


def resnet18_batch_norm_body(*, small: bool) -> nn.Sequential:
    """ResNet-18 of torchvision up to its last map, with batch norm and random weights.

    `small` replaces the stem, which divides the resolution by four, by a 3×3 convolution.
    """
    from torchvision.models.resnet import BasicBlock, ResNet  # noqa: PLC0415 - slow

    network = ResNet(BasicBlock, [2, 2, 2, 2])
    if small:
        network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return nn.Sequential(Standardize(), *list(network.children())[:-2])


def convnet_body(width: int, norm: Norm) -> nn.Sequential:
    """Eight 3×3 convolutions with ReLU, max-pooled by three after the sixth and the last."""
    layers: list[nn.Module] = [Standardize()]
    inputs = 3
    for number, factor in enumerate((1, 2, 2, 4, 4, 4, 4, 4), 1):
        outputs = factor * width
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), norm_layer(norm, outputs), nn.ReLU()]
        if number in (6, 8):
            layers.append(nn.MaxPool2d(3))
        inputs = outputs
    return nn.Sequential(*layers)


def dense_body(inputs: int, *, hidden: int = 256, depth: int = 1) -> nn.Sequential:
    """Flattened pixels (`inputs` = C·H·W) into `depth` hidden layers with bias and ReLU.

    Gives a map of one position and `hidden` channels.
    """
    if hidden < 1 or depth < 1:
        raise ValueError("hidden and depth must be at least 1")
    layers: list[nn.Module] = [Standardize(), nn.Flatten()]
    for width in (inputs, *[hidden] * (depth - 1)):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Unflatten(1, (hidden, 1, 1)))


def plain_body(widths: tuple[int, ...] = (6, 12)) -> nn.Sequential:
    """Convolutions of stride 1 with leaky ReLU of slope 0.2, nothing pooled or normalized.

    Where each width is at least that before it, a layer's outputs alone fix its inputs: what R-GAP
    (Zhu & Blaschko 2021) calls rank-sufficient.
    """
    if not widths or min(widths) < 1:
        raise ValueError("widths must be at least 1 each")
    layers: list[nn.Module] = [Standardize()]
    for inputs, outputs in pairwise((3, *widths)):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)
