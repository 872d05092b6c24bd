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
        moved = scores.scatter(1, labels[:, None], self.target_cosine(true))
        return F.cross_entropy(self.scale * moved, labels)


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
        moved = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > -math.cos(self.margin), moved, beyond)


HEADS = {"linear": LinearHead, "cosface": CosFaceHead, "arcface": ArcFaceHead}
