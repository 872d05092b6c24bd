"""Small networks as torchvision, face recognition and fine-tuning build them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.resnet import Bottleneck as WideBlock
from torchvision.ops import StochasticDepth

from fedaudit.models.recognition_bodies import Bottleneck, ImprovedResidual
from fedaudit.models.zoo import mobilefacenet

CLASSES = 12
SHAPE = (3, 32, 32)


class FaceHead(nn.Module):
    """A backbone and ArcFace as a bare parameter, its margin by `one_hot`, as training code has it.

    Args:
        backbone: Images → `[N, width]`.
        width: Of the embedding.
        classes: People.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.backbone = backbone
        self.centers = nn.Parameter(torch.randn(classes, width) * 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Cosines `[N, classes]`."""
        return F.linear(F.normalize(self.backbone(images)), F.normalize(self.centers))

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """ArcFace's loss: scale 16, margin 0.3."""
        inside = scores.clamp(-1 + 1e-6, 1 - 1e-6)
        true = F.one_hot(labels, scores.shape[1]).bool()
        return F.cross_entropy(16 * torch.where(true, (inside.acos() + 0.3).cos(), scores), labels)


def iresnet() -> nn.Module:
    """IResNet with two stages: flattened map, dropout, fully connected layer, BatchNorm1d."""
    stem = (nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
    blocks = (ImprovedResidual(8, 16, 2, "batch"), ImprovedResidual(16, 32, 2, "batch"))
    body = (*blocks, nn.BatchNorm2d(32))
    end = (nn.Flatten(), nn.Dropout(0.2), nn.Linear(32 * 64, 24), nn.BatchNorm1d(24))
    return FaceHead(nn.Sequential(*stem, *body, *end), 24)


def mobile_face() -> nn.Module:
    """MobileFaceNet with two bottlenecks: depthwise convolutions down to a 1×1 map."""
    stem = (nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16))
    body = (Bottleneck(16, 16, 1, 32, "batch"), Bottleneck(16, 32, 2, 32, "batch"))
    whole = nn.Conv2d(32, 32, 8, groups=32, bias=False)
    end = (whole, nn.BatchNorm2d(32), nn.Conv2d(32, 24, 1, bias=False), nn.BatchNorm2d(24))
    return FaceHead(nn.Sequential(*stem, *body, *end, nn.Flatten()), 24)


def adaface() -> nn.Module:
    """The zoo's MobileFaceNet, whole, with AdaFace."""
    return mobilefacenet(classes=CLASSES, image_size=SHAPE[1], head="adaface")


class Lora(nn.Module):
    """A frozen fully connected layer and a low-rank adapter beside it."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.base = nn.Linear(inside, outside).requires_grad_(False)
        self.down = nn.Linear(inside, 4, bias=False)
        self.up = nn.Linear(4, outside, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs, moved by the adapter's."""
        outputs: Tensor = self.base(x) + self.up(self.down(x))
        return outputs


def lora() -> nn.Module:
    """A frozen convolution, two adapted layers, a new head."""
    frozen = nn.Conv2d(3, 8, 4, 4).requires_grad_(False)
    layers = (frozen, nn.GELU(), nn.Flatten(), Lora(512, 48), nn.GELU(), Lora(48, 24))
    return nn.Sequential(*layers, nn.GELU(), nn.Linear(24, CLASSES))


def vit_lora() -> nn.Module:
    """A frozen vision transformer whose perceptrons have adapters; a new head."""
    network = vit().requires_grad_(False)
    for block in network.get_submodule("encoder.layers").children():
        perceptron: Any = block.get_submodule("mlp")
        perceptron[0] = Lora(32, 64)
    network.get_submodule("heads").requires_grad_(True)
    return network


def frozen_backbone() -> nn.Module:
    """ResNet of which only the new head is trained."""
    network: nn.Module = residual(BasicBlock).requires_grad_(False)
    network.get_submodule("fc").requires_grad_(True)
    return network


def residual(block: type[BasicBlock] | type[WideBlock]) -> Any:
    """torchvision's ResNet with one block a stage."""
    return ResNet(block, [1, 1, 1, 1], num_classes=CLASSES)


class Unused(nn.Module):
    """A network with a layer that its forward pass does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(7, 5)
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)
        self.last = nn.Linear(16 * 64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        maps = torch.sigmoid(self.second(torch.sigmoid(self.first(images))))
        scores: Tensor = self.last(maps.flatten(1))
        return scores


class Shared(nn.Module):
    """A convolution that is called twice, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.twice = nn.Conv2d(8, 8, 3, 1, 1)
        self.one, self.two = nn.Linear(512, 32), nn.Linear(32, 32)
        self.three = nn.Linear(32, 32)
        self.three.weight = self.two.weight
        self.last = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        maps = F.relu(self.twice(F.relu(self.twice(F.relu(self.first(images))))))
        rows = F.relu(self.one(F.max_pool2d(maps, 2).flatten(1)))
        scores: Tensor = self.last(F.relu(self.three(F.relu(self.two(rows)))))
        return scores


class Dropped(nn.Module):
    """Dropout as a layer and as a function, and a branch under stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.depth, self.drop = StochasticDepth(0.5, "row"), nn.Dropout(0.5)
        self.embedding, self.last = nn.Linear(8 * 64, 24), nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        maps = F.gelu(self.first(images))
        maps = maps + self.depth(F.gelu(self.branch(maps)))
        rows = self.embedding(self.drop(F.avg_pool2d(maps, 2).flatten(1)))
        scores: Tensor = self.last(F.dropout(rows, 0.2, self.training))
        return scores


def convnext() -> nn.Module:
    """torchvision's ConvNeXt, two stages."""
    stages = [CNBlockConfig(12, 24, 1), CNBlockConfig(24, None, 1)]
    network: nn.Module = ConvNeXt(stages, stochastic_depth_prob=0.1, num_classes=CLASSES)
    return network


def vit() -> nn.Module:
    """torchvision's vision transformer, two layers."""
    made: Any = models.VisionTransformer(32, 8, 2, 2, 32, 64, dropout=0.1, num_classes=CLASSES)
    nn.init.normal_(made.heads[0].weight, std=0.1)  # it starts at 0, which tells nothing
    network: nn.Module = made
    return network


def swin() -> nn.Module:
    """torchvision's Swin transformer, two stages."""
    sizes = ([4, 4], 16, [2, 2], [2, 4], [4, 4])
    network: nn.Module = models.SwinTransformer(*sizes, num_classes=CLASSES)
    return network
