"""PRECODE's variational bottleneck between a face network's feature map and its head."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import spec_sizes, wrap
from fedaudit.models.facenet import FaceNet, require_face_net
from fedaudit.models.named_network import create_network

FACTORY = f"{__name__}:with_bottleneck"


class VariationalBottleneck(nn.Module):
    """Features → mean and variance of a few numbers → a draw of them → embedding.

    It draws in training mode, and only with a generator (`give_noise`); else it passes the mean
    on. So a client draws, and whoever rebuilds its network and does not know what it drew computes
    with the expected values, without touching any randomness.

    Args:
        width: Of the features.
        size: Numbers k that are drawn.
        dim: Width of the embedding.
    """

    generator: torch.Generator | None

    def __init__(self, width: int, size: int, dim: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(width, 2 * size)
        self.decoder = nn.Linear(size, dim)
        self.generator = None

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings `[N, D]` of `features [N, F]`."""
        embeddings: Tensor = self.decoder(self.draw(self.encoder(features)))
        return embeddings

    def draw(self, encoded: Tensor) -> Tensor:
        """`[N, k]` numbers of `encoded [N, 2k]`."""
        mean, std = moments(encoded)
        if not self.training or self.generator is None:
            return mean
        return mean + std * torch.randn(mean.shape, generator=self.generator).to(mean)


def moments(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations, `[N, k]` each, that `encoded [N, 2k]` stands for.

    The softplus of the second half, not the exponential of a logarithm: that grows so fast that
    training at the learning rates of face recognition diverges.
    """
    mean, spread = encoded.chunk(2, 1)
    return mean, F.softplus(spread).clamp_min(1e-6)


def divergence(encoded: Tensor) -> Tensor:
    """KL divergence `[N]` from a standard normal distribution (Kingma & Welling, ICLR 2014)."""
    mean, std = moments(encoded)
    return (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(1)


class VariationalFaceNet(FaceNet):
    """A face network whose embedding layer is a variational bottleneck; its loss adds β·KL.

    The bottleneck's parameters are named `embedding.encoder.…` and `embedding.decoder.…`.

    Args:
        network: Its body and head are used, its embedding layer is replaced.
        size: Numbers k that are drawn.
        dim: Width of the embedding, which the head takes.
        beta: β, weight of the KL divergence.
    """

    embedding: VariationalBottleneck

    def __init__(self, network: FaceNet, *, size: int, dim: int, beta: float) -> None:
        nn.Module.__init__(self)
        self.body, self.pool, self.head = network.body, network.pool, network.head
        width = dim
        if isinstance(network.embedding, nn.Linear):
            width = network.embedding.in_features
        self.embedding = VariationalBottleneck(width, size, dim)
        self.beta = beta

    @property
    def first_fc_name(self) -> str:
        """Name of the weight of the first fully connected layer: the encoder's."""
        return "embedding.encoder.weight"

    @property
    def first_fc_layer(self) -> nn.Module:
        """The encoder."""
        return self.embedding.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[N, K + 1]`; the last is each image's KL divergence."""
        return self.after_first_fc(self.embedding.encoder(self.features(images)))

    def after_first_fc(self, outputs: Tensor) -> Tensor:
        """Scores `[N, K + 1]` of the encoder's outputs `[N, 2k]`."""
        scores = self.head(self.embedding.decoder(self.embedding.draw(outputs)))
        return torch.cat([scores, divergence(outputs)[:, None]], 1)

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The head's loss, and β times the mean divergence where `scores` have its column."""
        classes = len(self.head.weight)
        loss: Tensor = self.head.criterion(scores[:, :classes], labels)
        return loss + self.beta * scores[:, classes:].sum() / len(scores)


def give_noise(model: nn.Module, generator: torch.Generator) -> None:
    """Let the network's bottlenecks draw from `generator` while it trains."""
    for module in model.modules():
        if isinstance(module, VariationalBottleneck):
            module.generator = generator


def with_bottleneck(
    *,
    network: str,
    arguments: Mapping[str, Any],
    size: int,
    beta: float,
    classes: int,
    image_size: int,
) -> FaceNet:
    """A network with a variational bottleneck for an embedding layer; arguments as of `wrap`.

    `size` and `beta` are as in `VariationalFaceNet`.

    Raises:
        ConfigError: Another kind of network, whose own loss leaves no room for the divergence.
    """
    inner = {**arguments, "classes": classes, "image_size": image_size}
    plain = require_face_net(create_network(network, inner), "a variational bottleneck")
    if type(plain) is not FaceNet:
        raise ConfigError(
            f"a variational bottleneck needs a plain FaceNet, and {network} builds a "
            f"{type(plain).__name__}, whose loss leaves no room for the bottleneck's. Use it once, "
            "and with a method such as fedavg, fedgc or fedface."
        )
    return VariationalFaceNet(plain, size=size, dim=plain.head.weight.shape[1], beta=beta)


def spec_with_bottleneck(spec: ModelSpec, size: int, beta: float) -> ModelSpec:
    """The spec of `with_bottleneck` for the network that `spec` builds.

    Where a method has put its own loss on a network (`fedaudit.models.method_heads`), the
    bottleneck goes into that network, beneath the loss.
    """
    arguments = dict(spec.arguments)
    if isinstance(arguments.get("network"), str) and "head" in arguments:
        inner = {**arguments.pop("arguments"), **spec_sizes(spec)}
        beneath = spec_with_bottleneck(ModelSpec(arguments.pop("network"), inner), size, beta)
        return wrap(beneath, spec.factory, arguments)
    return wrap(spec, FACTORY, {"size": size, "beta": beta})
