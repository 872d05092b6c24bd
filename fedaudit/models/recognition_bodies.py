"""Bodies that face recognition deploys: iResNet and MobileFaceNet, and a vision transformer.

Written after the papers and after what InsightFace's training code builds, layer for layer; what
is left out there by default (dropout before the embedding) is left out here.
"""

from torch import Tensor, nn

from fedaudit.models.bodies import Norm, Standardize, norm_layer

IRESNET_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3)}
"""Blocks of each of the four stages, by the network's depth."""
_BOTTLENECKS = ((64, 5, 2, 2), (128, 1, 2, 4), (128, 6, 1, 2), (128, 1, 2, 4), (128, 2, 1, 2))
"""Channels, repeats, stride of the first, expansion: table 1 of the MobileFaceNet paper."""


class ImprovedResidual(nn.Module):
    """iResNet's block: norm, 3×3, norm, PReLU, 3×3, norm, and nothing after the sum.

    The "IR" unit of ArcFace (Deng et al., CVPR 2019, section 3.1), after He et al. (ECCV 2016).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            norm_layer(norm, inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            norm_layer(norm, outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            norm_layer(norm, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            across = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(across, norm_layer(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H/stride, W/stride]`."""
        maps: Tensor = self.layers(x) + self.shortcut(x)
        return maps


def iresnet_body(depth: int, norm: Norm) -> nn.Sequential:
    """iResNet: a 3×3 stem at full resolution, four stages that each halve it, a norm.

    Args:
        depth: 18 or 50.
        norm: "batch" as it is deployed, "group", or "none".
    """
    layers: list[nn.Module] = [
        Standardize(),
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        norm_layer(norm, 64),
        nn.PReLU(64),
    ]
    inputs = 64
    for outputs, count in zip((64, 128, 256, 512), IRESNET_BLOCKS[depth], strict=True):
        for number in range(count):
            stride = 2 if number == 0 else 1
            layers.append(ImprovedResidual(inputs, outputs, stride, norm))
            inputs = outputs
    body = nn.Sequential(*layers, norm_layer(norm, inputs))
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)  # as InsightFace starts it
    return body


def _convolution(
    inputs: int,
    outputs: int,
    size: int = 1,
    stride: int = 1,
    *,
    norm: Norm,
    depthwise: bool = False,
    padding: int | None = None,
    linear: bool = False,
) -> list[nn.Module]:
    """Convolution, norm and, unless `linear`, PReLU."""
    padding = size // 2 if padding is None else padding
    groups = inputs if depthwise else 1
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False),
        norm_layer(norm, outputs),
    ]
    return layers if linear else [*layers, nn.PReLU(outputs)]


class Bottleneck(nn.Module):
    """MobileFaceNet's bottleneck: expand, depthwise 3×3, project; a shortcut if shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, hidden: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(inputs, hidden, norm=norm),
            *_convolution(hidden, hidden, 3, stride, norm=norm, depthwise=True),
            *_convolution(hidden, outputs, norm=norm, linear=True),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H/stride, W/stride]`."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def mobilefacenet_body(image_size: int, norm: Norm) -> nn.Sequential:
    """MobileFaceNet up to its global depthwise convolution (Chen et al., 2018, table 1).

    That convolution is as large as the map, 7×7 at 112 px, and leaves one value a channel: a mean
    with learned weights.

    Args:
        image_size: Pixels, at least 16.
        norm: "batch" as it is deployed, "group", or "none".
    """
    layers: list[nn.Module] = [
        Standardize(),
        *_convolution(3, 64, 3, 2, norm=norm),
        *_convolution(64, 64, 3, norm=norm, depthwise=True),
    ]
    inputs = 64
    for outputs, count, first, expansion in _BOTTLENECKS:
        for number in range(count):
            stride = first if number == 0 else 1
            layers.append(Bottleneck(inputs, outputs, stride, inputs * expansion, norm))
            inputs = outputs
    side = image_size
    for _ in range(4):
        side = (side + 1) // 2
    last = _convolution(512, 512, side, norm=norm, depthwise=True, padding=0, linear=True)
    body = nn.Sequential(*layers, *_convolution(inputs, 512, norm=norm), *last)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body


def vision_transformer_body(image_size: int, patch: int) -> nn.Sequential:
    """Torchvision's vision transformer of ViT-S's width: 12 layers, 6 heads, 384 numbers a token.

    Dosovitskiy et al. (ICLR 2021); S is Touvron et al.'s (ICML 2021). Gives the class token as a
    map of one position.
    """
    from torchvision.models import VisionTransformer  # noqa: PLC0415 - slow

    network = VisionTransformer(image_size, patch, 12, 6, 384, 1536)
    network.heads = nn.Identity()
    return nn.Sequential(Standardize(), network, nn.Unflatten(1, (384, 1, 1)))
