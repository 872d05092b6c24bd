"""A face network: body → embedding → head, the three parts that methods and defenses name."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.models.heads import HEADS

Criterion = Callable[[Tensor, Tensor], Tensor]


class NormedEmbedding(nn.Module):
    """An embedding layer with batch norm behind it, as ArcFace's networks have it.

    Its scale is trained, which InsightFace's code holds at 1.

    Args:
        width: Of the flattened map.
        dim: Of the embedding.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.encoder, self.norm = nn.Linear(width, dim), nn.BatchNorm1d(dim)
        self.in_features, self.out_features = width, dim

    def forward(self, features: Tensor) -> Tensor:
        """`[N, width]` → `[N, dim]`."""
        embedding: Tensor = self.norm(self.encoder(features))
        return embedding


class FaceNet(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] → scores `[N, K]`.

    Args:
        body: Images → feature map.
        image_size: Height and width in pixels; decides the width of the flattened map.
        classes: K.
        dim: Width of the embedding; 0 leaves the layer out, as classifiers do.
        head: "linear", "cosface", "arcface" or "adaface".
        embedding_norm: Batch norm behind the embedding layer (`NormedEmbedding`).
        pool: "flatten" (face recognition: every position of the map reaches the embedding) or
            "average" (classification: the map is averaged away).
        channels: C.
        head_settings: Further settings of the head (scale, margin).
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        image_size: int,
        classes: int,
        dim: int = 128,
        head: str = "cosface",
        pool: Literal["flatten", "average"] = "flatten",
        channels: int = 3,
        embedding_norm: bool = False,
        **head_settings: float,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise UnknownNameError("head", head, HEADS)
        if pool not in ("flatten", "average"):
            raise UnknownNameError("pooling", pool, ("flatten", "average"))
        self.body, self.pool = body, pool
        body.eval()  # in training mode batch norm would remember what the width is measured with
        with torch.no_grad():
            shape = body(torch.zeros(1, channels, image_size, image_size)).shape
        body.train()
        width = shape[1] if pool == "average" else shape[1:].numel()
        # A pooled classifier has no embedding layer of its own: the averaged map is the embedding.
        dim = 0 if pool == "average" else dim
        self.embedding: nn.Module = nn.Linear(width, dim, bias=False) if dim else nn.Identity()
        if dim and embedding_norm:
            self.embedding = NormedEmbedding(width, dim)
        self.head = HEADS[head](dim or width, classes, **head_settings)

    @property
    def first_fc_name(self) -> str:
        """Name of the weight of the first fully connected layer: the embedding's or the head's."""
        if isinstance(self.embedding, NormedEmbedding):
            return "embedding.encoder.weight"
        return f"{'head' if isinstance(self.embedding, nn.Identity) else 'embedding'}.weight"

    @property
    def first_fc_layer(self) -> nn.Module:
        """The first fully connected layer itself."""
        if isinstance(self.embedding, NormedEmbedding):
            return self.embedding.encoder
        return self.head if isinstance(self.embedding, nn.Identity) else self.embedding

    def after_first_fc(self, outputs: Tensor) -> Tensor:
        """Scores `[N, K]` of the outputs of the first fully connected layer."""
        if self.first_fc_layer is self.head:
            return outputs
        if isinstance(self.embedding, NormedEmbedding):
            outputs = self.embedding.norm(outputs)
        scores: Tensor = self.head(outputs)
        return scores

    def features(self, images: Tensor) -> Tensor:
        """What enters the embedding, `[N, F]`: the flattened or averaged map."""
        maps: Tensor = self.body(images)
        return maps.mean((2, 3)) if self.pool == "average" else maps.flatten(1)

    def embed(self, images: Tensor) -> Tensor:
        """Unit embeddings `[N, D]`, for verification."""
        return F.normalize(self.embedding(self.features(images)), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[N, K]`."""
        scores: Tensor = self.head(self.embedding(self.features(images)))
        return scores

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The head's training loss."""
        loss: Tensor = self.head.criterion(scores, labels)
        return loss


def criterion_of(model: nn.Module) -> Criterion:
    """The loss that a model is trained with: its own `criterion`, else cross-entropy."""
    own: Any = getattr(model, "criterion", None)
    return own if callable(own) else F.cross_entropy


def require_face_net(model: nn.Module, what: str) -> FaceNet:
    """The model as a `FaceNet`, whose three parts `what` needs; a `ConfigError` for others."""
    if not isinstance(model, FaceNet):
        raise ConfigError(
            f"{what} needs a network with the parts body, embedding and head "
            f"(fedaudit.models.facenet.FaceNet), not {type(model).__name__}. "
            "Build it with FaceNet(body, …), which takes any body."
        )
    return model
