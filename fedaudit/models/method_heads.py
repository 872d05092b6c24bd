"""Face networks with the losses of federated methods: FedFace, PrivacyFace, FedAffect.

A loss is part of the network so that an attacker who knows the method rebuilds it, as
`criterion(model(images), labels)`, and an attack needs to know no method.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import spec_sizes, wrap
from fedaudit.models.facenet import FaceNet, require_face_net
from fedaudit.models.heads import CosFaceHead, cosines
from fedaudit.models.named_network import create_network
from fedaudit.models.variational_bottleneck import VariationalFaceNet

WITH_HEAD = f"{__name__}:with_head"


class PullHead(nn.Module):
    """FedFace's local loss: mean relu(m − cos θ)², which pulls features to fixed class embeddings.

    Aggarwal et al. (CVPR Workshops 2021). The embeddings are a buffer, `weight`: clients do not
    train them.

    Args:
        dim: Width of the embedding.
        classes: Number of classes K.
        margin: m; features whose cosine to their class is above it are not pulled.
    """

    weight: Tensor

    def __init__(self, dim: int, classes: int, *, margin: float = 0.9) -> None:
        super().__init__()
        self.register_buffer("weight", nn.init.xavier_normal_(torch.empty(classes, dim)))
        self.margin = margin

    def forward(self, embedding: Tensor) -> Tensor:
        """Cosines `[N, K]` of `embedding [N, D]` to the class embeddings."""
        return cosines(embedding, self.weight)

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean over images of relu(m − cos)² to their own class; `scores [N, K]`."""
        own = scores.gather(1, labels[:, None])
        return F.relu(self.margin - own).square().mean()


class Clusters(nn.Module):
    """Cosines to other clients' clusters, less their radius.

    Args:
        dim: Width of the embedding.
        most: M, rows of the buffer `centers [M, D]`; those that are zero are none.
        radius: ρ in radians.
    """

    centers: Tensor

    def __init__(self, dim: int, most: int, radius: float) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(most, dim))
        self.radius = radius

    def forward(self, embedding: Tensor) -> Tensor:
        """`[N, M]`: cos(max(θ − ρ, 0)) of `embedding [N, D]`; -1000 for absent clusters."""
        cosine = cosines(embedding, self.centers)
        beyond = (cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos() - self.radius).clamp_min(0).cos()
        # An absent cluster must weigh nothing in the softmax; -inf would make NaN of its gradient.
        return beyond.masked_fill(self.centers.norm(dim=1) == 0, -1e3)


class Consensus(FaceNet):
    """PrivacyFace's network: CosFace with other clients' clusters among the negatives.

    Meng et al. (ICLR 2022), consensus-aware recognition loss, as recalled in the literature. A
    cluster (p, ρ) adds exp(s·cos(max(θ − ρ, 0))) to the softmax denominator, θ the angle between
    feature and p: whatever lies inside the cluster counts as its very center. The clusters are no
    part of the head, because Opacus refuses a trained module that has buffers.

    Args:
        network: Its body and embedding; its head is replaced.
        dim: Width of the embedding.
        classes: Number of the client's own classes K.
        remote: M, most clusters of others.
        radius: ρ in radians.
        scale: s.
        margin: CosFace's m.
    """

    def __init__(
        self,
        network: FaceNet,
        *,
        dim: int,
        classes: int,
        remote: int,
        radius: float,
        scale: float = 16.0,
        margin: float = 0.35,
    ) -> None:
        nn.Module.__init__(self)
        self.body, self.pool, self.embedding = network.body, network.pool, network.embedding
        self.head = CosFaceHead(dim, classes, scale=scale, margin=margin)
        self.clusters = Clusters(dim, remote, radius)

    def forward(self, images: Tensor) -> Tensor:
        """Cosines `[N, K + M]`: to the own classes, then to the clusters less their radius."""
        embedding = self.embedding(self.features(images))
        return torch.cat([self.head(embedding), self.clusters(embedding)], 1)


class TwoViews(FaceNet):
    """A face network without a head that learns from photos without labels.

    SimCLR's loss (Chen et al., ICML 2020, equation 1) between two fixed views of each photo: as it
    is; and mirrored, closer and with less contrast. Fixed, so that the loss is a function of the
    photos alone; a client may draw further changes before. The loss compares the photos of a
    batch: it has no gradient of one photo, and DP-SGD no guarantee.

    Args:
        network: Its body and embedding; its head is dropped.
        temperature: τ of the loss.
    """

    def __init__(self, network: FaceNet, *, temperature: float = 0.2) -> None:
        nn.Module.__init__(self)
        self.body, self.pool, self.embedding = network.body, network.pool, network.embedding
        self.head = nn.Identity()
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """Unit embeddings of both views side by side, `[N, 2D]`."""
        return torch.cat([self.embed(images), self.embed(other_view(images))], 1)

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """NT-Xent over the 2N views; labels play no part."""
        views = torch.cat(scores.chunk(2, 1))
        count = len(scores)
        similar = views @ views.T / self.temperature
        itself = torch.eye(2 * count, dtype=torch.bool, device=scores.device)
        partner = torch.arange(2 * count, device=scores.device).roll(count)
        return F.cross_entropy(similar.masked_fill(itself, -1e3), partner)


def other_view(images: Tensor) -> Tensor:
    """Mirrored, the central 80 % enlarged, contrast 60 %; differentiable."""
    size = images.shape[-1]
    cut = max(1, round(0.1 * size))
    near = images.flip(3)[..., cut : size - cut, cut : size - cut]
    near = F.interpolate(near, size=(size, size), mode="bilinear", align_corners=False)
    mean = near.mean((1, 2, 3), keepdim=True)
    return mean + 0.6 * (near - mean)


LOSSES = ("pull", "consensus", "two_views")


def with_head(
    *,
    network: str,
    arguments: Mapping[str, Any],
    head: str,
    settings: Mapping[str, Any],
    classes: int,
    image_size: int,
) -> FaceNet:
    """A network with the loss of a method in place of its own head; arguments as of `wrap`.

    `head` is "pull", "consensus" or "two_views", with the `settings` of that class.
    """
    sizes = {"classes": classes, "image_size": image_size}
    model = require_face_net(create_network(network, {**arguments, **sizes}), "this method")
    if isinstance(model, VariationalFaceNet) and head != "pull":
        raise ConfigError(
            f"the loss {head!r} of this method leaves no room for that of a variational bottleneck "
            "(the defense precode). Use a method such as fedavg, fedgc or fedface."
        )
    if head == "two_views":
        return TwoViews(model, **settings)
    dim = _width_of(model, image_size)
    if head == "consensus":
        return Consensus(model, dim=dim, classes=classes, **settings)
    if head != "pull":
        raise UnknownNameError("head", head, LOSSES)
    model.head = PullHead(dim, classes, **settings)
    return model


def _width_of(network: FaceNet, image_size: int) -> int:
    """D, the width of the embedding."""
    if isinstance(network, VariationalFaceNet):
        return network.embedding.decoder.out_features
    if isinstance(network.embedding, nn.Linear):
        return network.embedding.out_features
    training = network.training
    with torch.no_grad():  # in evaluation mode, because batch norm would remember the zeros
        width = network.eval().features(torch.zeros(1, 3, image_size, image_size)).shape[1]
    network.train(training)
    return width


def spec_with_head(spec: ModelSpec, head: str, settings: Mapping[str, Any]) -> ModelSpec:
    """The spec of `with_head` for the network that `spec` builds."""
    return wrap(spec, WITH_HEAD, {"head": head, "settings": dict(settings)})


def without_head(spec: ModelSpec) -> ModelSpec:
    """The spec of a network that has one of these heads, with the network's own head again.

    What a defense has put around the network stays around it.
    """
    own = dict(spec.arguments)
    inner = ModelSpec(own.pop("network"), {**own.pop("arguments"), **spec_sizes(spec)})
    return inner if spec.factory == WITH_HEAD else wrap(without_head(inner), spec.factory, own)
