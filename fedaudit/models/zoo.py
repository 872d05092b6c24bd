"""The registered networks, and `build`, which makes a module of a `ModelSpec`."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import ModelSpec
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
from fedaudit.models.derivatives import replace_hardsigmoid
from fedaudit.models.facenet import FaceNet
from fedaudit.models.named_network import create_network
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


def build(
    spec: ModelSpec, state: Mapping[str, Tensor] | None = None, *, seed: int = 0
) -> nn.Module:
    """A network in training mode.

    Args:
        spec: A network's name (`named_network`), with arguments.
        state: Parameters and buffers by name; those that are absent keep their random start.
        seed: Of the random start.

    Raises:
        UnknownNameError: No such network.
        ConfigError: The factory refuses its arguments, or returns no module.
        AttackError: A parameter has another shape, or a name that the network does not have.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_network(spec.factory, spec.arguments)
    if not isinstance(model, FaceNet):
        replace_hardsigmoid(model)
    if state:
        load(model, state)
    return model.train()


def spec_sizes(spec: ModelSpec) -> dict[str, Any]:
    """The arguments `classes` and `image_size` of a spec."""
    return {name: spec.arguments[name] for name in ("classes", "image_size")}


def wrap(spec: ModelSpec, factory: str, settings: Mapping[str, Any] | None = None) -> ModelSpec:
    """The spec of a factory that takes another network: as `network` and `arguments`.

    `classes` and `image_size` stay among the arguments of the outer one, where they are looked for.
    """
    sizes = spec_sizes(spec)
    inner = {k: v for k, v in spec.arguments.items() if k not in sizes}
    return ModelSpec(
        factory, {"network": spec.factory, "arguments": inner, **(settings or {}), **sizes}
    )


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy parameters by name into `model`, in place; names that are absent are left alone."""
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in state.items():
            if name not in own:
                raise AttackError(
                    f"the network has no parameter {name!r}. Its first is {next(iter(own))!r}: "
                    "was the update made with another architecture?"
                )
            if own[name].shape != value.shape:
                raise AttackError(
                    f"parameter {name!r} is {tuple(own[name].shape)} in the network and "
                    f"{tuple(value.shape)} in the update: another number of classes or image size?"
                )
            own[name].copy_(value)


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Detached copies of the parameters, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}
