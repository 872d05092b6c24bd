"""Heads on a face embedding, and the losses that go with them.

A head's `forward` returns scores `[N, K]`; its `criterion(scores, labels)` is the training loss.
The margin is applied in the criterion, not in `forward`, so that a head is one module with one
input and one output: what Opacus' per-sample gradients need.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cosines(embedding: Tensor, centers: Tensor) -> Tensor:
    """Cosines `[N, K]` of each of `embedding [N, D]` to each of `centers [K, D]`."""
    return F.linear(F.normalize(embedding, dim=1), F.normalize(centers, dim=1))


class LinearHead(nn.Linear):
    """Fully connected layer with bias and softmax cross-entropy."""

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy; `scores [N, K]`, `labels [N]`."""
        return F.cross_entropy(scores, labels)


class CosineHead(nn.Module):
    """Cosines between the embedding and one unit row a class; no bias.

    Args:
        dim: Width of the embedding.
        classes: Number of classes K.
        scale: s, the inverse temperature.
        margin: m; subclasses say where it enters.
    """

    def __init__(self, dim: int, classes: int, *, scale: float, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_normal_(self.weight)
        self.scale, self.margin = scale, margin

    def forward(self, embedding: Tensor) -> Tensor:
        """Cosines `[N, K]` in [-1, 1] of `embedding [N, D]` to the class centers."""
        return cosines(embedding, self.weight)

    def target_cosine(self, cosine: Tensor) -> Tensor:
        """The margin, applied to the true class's cosine `[N]`."""
        raise NotImplementedError

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the scaled scores after the margin; `scores [N, K]`."""
        true = scores.gather(1, labels[:, None])
        with_margin = scores.scatter(1, labels[:, None], self.target_cosine(true))
        return F.cross_entropy(self.scale * with_margin, labels)


class CosFaceHead(CosineHead):
    """CosFace: logit s·(cos θ − m) for the true class (Wang et al., CVPR 2018, eq. 4)."""

    def __init__(
        self, dim: int, classes: int, *, scale: float = 16.0, margin: float = 0.35
    ) -> None:
        super().__init__(dim, classes, scale=scale, margin=margin)

    def target_cosine(self, cosine: Tensor) -> Tensor:
        """Cos θ − m."""
        return cosine - self.margin


class ArcFaceHead(CosineHead):
    """ArcFace: logit s·cos(θ + m) for the true class (Deng et al., CVPR 2019, eq. 3)."""

    def __init__(self, dim: int, classes: int, *, scale: float = 16.0, margin: float = 0.5) -> None:
        super().__init__(dim, classes, scale=scale, margin=margin)

    def target_cosine(self, cosine: Tensor) -> Tensor:
        """Cos(θ + m), continued linearly where θ + m > π so that it stays monotone."""
        cosine = cosine.clamp(-1 + 1e-6, 1 - 1e-6)
        sine = (1 - cosine.square()).sqrt()
        with_margin = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > -math.cos(self.margin), with_margin, beyond)


class AdaFaceHead(CosineHead):
    """AdaFace: the margin follows the embedding's length, which tells a photo's quality.

    Logit s·(cos(θ + g_angle) − g_add) for the true class, g_angle = −m·q and g_add = m·q + m, where
    the quality q = (‖z‖ − μ) / (σ/h), clipped to [−1, 1] and without derivative (Kim et al., CVPR
    2022, eq. 12–14, h = 1/3). μ and σ are moving averages over the course of training, which a
    round hardly moves: here they are settings, so that no image's loss depends on the others.

    Args:
        dim: Width of the embedding.
        classes: Number of classes K.
        scale: s.
        margin: m.
        mean_length: μ; √dim if not given, the length that batch norm gives embeddings.
        length_spread: σ; a quarter of μ if not given.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        scale: float = 16.0,
        margin: float = 0.4,
        mean_length: float | None = None,
        length_spread: float | None = None,
    ) -> None:
        super().__init__(dim, classes, scale=scale, margin=margin)
        self.mean_length = math.sqrt(dim) if mean_length is None else mean_length
        self.length_spread = self.mean_length / 4 if length_spread is None else length_spread

    def forward(self, embedding: Tensor) -> Tensor:
        """Scores `[N, K + 1]`: cosines to the class centers, then q − 3, which no cosine is."""
        length = embedding.detach().norm(dim=1, keepdim=True)
        quality = ((length - self.mean_length) / (3 * self.length_spread)).clamp(-1, 1)
        return torch.cat([super().forward(embedding), quality - 3], 1)

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy after the margin; of cosines `[N, K]` alone, at q = 0."""
        classes = len(self.weight)
        cosine, rest = scores[:, :classes], scores[:, classes:]
        quality = rest + 3 if rest.shape[1] else torch.zeros_like(cosine[:, :1])
        true = cosine.gather(1, labels[:, None])
        angle = true.clamp(-1 + 1e-6, 1 - 1e-6).acos() - self.margin * quality
        with_margin = angle.clamp(1e-3, math.pi - 1e-3).cos() - self.margin * (quality + 1)
        return F.cross_entropy(self.scale * cosine.scatter(1, labels[:, None], with_margin), labels)


HEADS = {
    "linear": LinearHead,
    "cosface": CosFaceHead,
    "arcface": ArcFaceHead,
    "adaface": AdaFaceHead,
}
