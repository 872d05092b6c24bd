"""The registered networks: what studies name as their `network`, each a body and a head."""

from typing import Literal

from torch import nn

from fedaudit.models.bodies import (
    Norm,
    convnet_body,
    dense_body,
    plain_body,
    residual_body,
    resnet18_batch_norm_body,
    resnet18_body,
    smooth_body,
)
from fedaudit.models.facenet import FaceNet
from fedaudit.models.recognition_bodies import (
    iresnet_body,
    mobilefacenet_body,
    vision_transformer_body,
)

Head = Literal["cosface", "arcface", "adaface", "linear"]


def face(
    *,
    classes: int,
    image_size: int = 32,
    head: Head = "cosface",
    dim: int = 128,
    norm: Norm = "group",
) -> FaceNet:
    """Residual body, flattened map into an embedding, CosFace: what face recognition uses.

    Args:
        classes: Number of people in the head.
        image_size: Pixels; each doubling beyond 32 adds a stage, so the map stays 4×4.
        head: "cosface", "arcface", "adaface" or "linear".
        dim: Width of the embedding.
        norm: "group", "batch" (as face recognition does without privacy; DP-SGD refuses it) or
            "none".
    """
    body = _residual_for(image_size, norm)
    return FaceNet(body, image_size=image_size, classes=classes, head=head, dim=dim)


def face_pooled(*, classes: int, image_size: int = 32, head: Head = "linear") -> FaceNet:
    """The body of `face` with average pooling and a linear head: far harder to invert."""
    return FaceNet(
        _residual_for(image_size), image_size=image_size, classes=classes, head=head, pool="average"
    )


def small_cnn(
    *, classes: int, image_size: int = 32, head: Head = "linear", dim: int = 128
) -> FaceNet:
    """Three sigmoid convolutions and a hidden layer: smooth, the positive control of the field."""
    return FaceNet(smooth_body(), image_size=image_size, classes=classes, head=head, dim=dim)


def lenet(*, classes: int, image_size: int = 32, head: Head = "linear") -> FaceNet:
    """The LeNet of deep leakage from gradients, 15.8 k parameters at 10 classes.

    Three sigmoid convolutions, flattened into the head, on images as they are; all parameters
    uniform in ±0.5 (Zhu et al., NeurIPS 2019), which keeps the sigmoids off their linear part.
    """
    body = smooth_body(standardize=False)
    network = FaceNet(body, image_size=image_size, classes=classes, head=head, dim=0)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return network


def resnet18(*, classes: int, image_size: int = 64, head: Head = "linear") -> FaceNet:
    """ResNet-18 of torchvision with GroupNorm and average pooling, 11.2 M parameters."""
    return FaceNet(
        resnet18_body(), image_size=image_size, classes=classes, head=head, pool="average"
    )


def resnet18_bn(*, classes: int, image_size: int = 32, head: Head = "linear") -> FaceNet:
    """ResNet-18 of torchvision with its batch norm and average pooling, 11.2 M parameters.

    Up to 64 px its stem is a 3×3 convolution at full resolution without pooling, as is usual for
    small images (He et al., CVPR 2016, section 4.2). DP-SGD refuses it.
    """
    return FaceNet(
        resnet18_batch_norm_body(small=image_size <= 64),
        image_size=image_size,
        classes=classes,
        head=head,
        pool="average",
    )


def convnet(
    *,
    classes: int,
    image_size: int = 32,
    head: Head = "linear",
    width: int = 64,
    norm: Norm = "batch",
) -> FaceNet:
    """Eight 3×3 convolutions, flattened into the head; 2.9 M parameters at width 64.

    The plain network that gradient inversion is often shown on (Geiping et al., NeurIPS 2020).

    Args:
        classes: Number of people in the head.
        image_size: Pixels, at least 16.
        head: "linear", "cosface", "arcface" or "adaface".
        width: Channels of the first convolution; the last has four times as many.
        norm: "batch" (DP-SGD refuses it), "group" or "none".
    """
    body = convnet_body(width, norm)
    return FaceNet(body, image_size=image_size, classes=classes, head=head, dim=0)


def iresnet18(
    *,
    classes: int,
    image_size: int = 112,
    head: Head = "arcface",
    dim: int = 512,
    norm: Norm = "batch",
) -> FaceNet:
    """iResNet-18 of ArcFace (Deng et al., CVPR 2019): flattened map, PReLU, 24 M parameters.

    Args:
        classes: Number of people in the head.
        image_size: Pixels; deployed at 112.
        head: "arcface", "cosface", "adaface" or "linear".
        dim: Width of the embedding.
        norm: "batch" as it is deployed, behind the embedding too; "group" or "none".
    """
    return _recognition(iresnet_body(18, norm), classes, image_size, head, dim, norm)


def iresnet50(
    *,
    classes: int,
    image_size: int = 112,
    head: Head = "arcface",
    dim: int = 512,
    norm: Norm = "batch",
) -> FaceNet:
    """iResNet-50 of ArcFace, the usual network of face recognition; 44 M parameters.

    Arguments are those of `iresnet18`.
    """
    return _recognition(iresnet_body(50, norm), classes, image_size, head, dim, norm)


def mobilefacenet(
    *,
    classes: int,
    image_size: int = 112,
    head: Head = "arcface",
    dim: int = 128,
    norm: Norm = "batch",
) -> FaceNet:
    """MobileFaceNet (Chen et al., 2018): what phones run; 1 M parameters.

    Depthwise bottlenecks and a global depthwise convolution in place of pooling. Arguments are
    those of `iresnet18`.
    """
    body = mobilefacenet_body(image_size, norm)
    return _recognition(body, classes, image_size, head, dim, norm)


def vit_s(
    *, classes: int, image_size: int = 112, head: Head = "linear", patch: int = 16
) -> FaceNet:
    """ViT-S of torchvision's parts (Dosovitskiy et al., ICLR 2021), 21 M parameters.

    Args:
        classes: Number of people in the head, which takes the class token.
        image_size: Pixels, a multiple of `patch`.
        head: "linear", "cosface", "arcface" or "adaface".
        patch: Pixels that a patch is high and wide.
    """
    body = vision_transformer_body(image_size, patch)
    return FaceNet(body, image_size=image_size, classes=classes, head=head, dim=0)


def mlp(
    *, classes: int, image_size: int = 32, head: Head = "linear", hidden: int = 256, depth: int = 1
) -> FaceNet:
    """Pixels straight into fully connected layers with ReLU: gives small batches away exactly.

    Args:
        classes: Number of people in the head.
        image_size: Pixels.
        head: "cosface", "arcface", "adaface" or "linear".
        hidden: Width of each hidden layer.
        depth: Number of hidden layers.
    """
    body = dense_body(3 * image_size**2, hidden=hidden, depth=depth)
    return FaceNet(body, image_size=image_size, classes=classes, head=head, pool="average")


def plain_cnn(
    *,
    classes: int,
    image_size: int = 32,
    head: Head = "linear",
    widths: tuple[int, ...] = (6, 12),
    dim: int = 64,
) -> FaceNet:
    """Leaky-ReLU convolutions of stride 1, no pooling: can be inverted layer by layer.

    Args:
        classes: Number of people in the head.
        image_size: Pixels.
        head: "cosface", "arcface", "adaface" or "linear".
        widths: Channels of each convolution; rising widths leave each layer's input no freedom.
        dim: Width of the embedding.
    """
    body = plain_body(tuple(widths))
    return FaceNet(body, image_size=image_size, classes=classes, head=head, dim=dim)


def _recognition(
    body: nn.Module, classes: int, image_size: int, head: Head, dim: int, norm: Norm
) -> FaceNet:
    return FaceNet(
        body,
        image_size=image_size,
        classes=classes,
        head=head,
        dim=dim,
        embedding_norm=norm == "batch",
    )


def _residual_for(image_size: int, norm: Norm = "group") -> nn.Sequential:
    widths: tuple[int, ...] = (32, 64, 128)
    while image_size >> len(widths) > 4:
        widths = (*widths, 128)
    return residual_body(widths, norm=norm)
