"""What the first fully connected layer after the feature map gives away, in closed form.

Its weight gradient is a sum over images, G = Σ_i a_i f_iᵀ: a_i is its upstream gradient, f_i the
flattened feature map. So the row space of G is spanned by the maps of the batch. At batch 1 that is
the map itself, whatever the label, the head or its bias. At batch N the sum can
be taken apart where more is known (`map_separation`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.matrix_completion import complete_rows
from fedaudit.models.class_head import is_class_head
from fedaudit.models.facenet import FaceNet
from fedaudit.models.foreign_network import ForeignFaceNet

SPECTRAL_GAP = 2.0
"""The signal's singular values must exceed those behind them by this factor to count as signal."""
SENT_WHOLE = 0.01
"""Share of zeros up to which columns of which something was sent count as sent whole."""


@dataclass(frozen=True)
class FirstFullyConnected:
    """The layer, its gradient, and what follows from it.

    Attributes:
        weight: `[D, F]`.
        gradient: `[D, F]`.
        span: `[N, F]`, orthonormal rows: the space that the batch's feature maps span.
        maps: `[N, F]`, each image's own feature map (its direction is meaningful, its length is
            relative to `upstream`); None where the batch could not be taken apart.
        upstream: `[N, D]`, the gradients a_i that go with `maps`.
        known: `[F]`, 1 where the gradient tells of the maps and 0 where a defense left it out
            (`span` and `maps` are 0 there); None where it tells of them all.
    """

    weight: Tensor
    gradient: Tensor
    span: Tensor
    maps: Tensor | None = None
    upstream: Tensor | None = None
    known: Tensor | None = None

    def known_part(self, features: Tensor) -> Tensor:
        """The part of maps `[n, F]` that the gradient tells of."""
        return features if self.known is None else features * self.known


def find_first_fully_connected(
    model: nn.Module, target: Mapping[str, Tensor], count: int, *, sparse: bool = False
) -> FirstFullyConnected | None:
    """Feature maps from the gradient of the first fully connected layer of a `FaceNet`.

    With `maps` at batch 1 (beyond it see `map_separation`); None where the layer was not shared, or
    its signal drowns in noise. `sparse`: zeros stand for entries that were not sent (pruning,
    Soteria).
    """
    layer = find_linear_layer(model)
    if layer is None:
        return None
    assert isinstance(model, FaceNet)
    gradient = target.get(model.first_fc_name)
    if gradient is None or count >= min(gradient.shape):
        return None
    if sparse and not bool((gradient != 0).all()):
        return _from_sparse(layer.weight.detach(), gradient, count)
    _, sizes, rows = torch.linalg.svd(gradient, full_matrices=False)
    rank = int((sizes > 1e-5 * sizes[0]).sum())
    size = min(count, rank)
    if not rank or (len(sizes) > size and sizes[size - 1] < SPECTRAL_GAP * sizes[size]):
        return None
    first_fc = FirstFullyConnected(layer.weight.detach(), gradient, rows[:size])
    if count > 1:
        return first_fc
    maps = (
        first_fc.span * first_fc.span.sum().sign()
    )  # maps after (P)ReLU are positive on the whole
    return replace(first_fc, maps=maps, upstream=(gradient @ maps[0])[None])


def _from_sparse(weight: Tensor, gradient: Tensor, count: int) -> FirstFullyConnected | None:
    """What a gradient with missing entries gives away.

    Where whole columns are missing the others are as they were. Where single entries are, those of
    N images' gradient are products of few numbers: alternating least squares over what was sent.
    """
    mask = gradient != 0
    columns = mask.any(0)
    if not bool(columns.any()):
        return None
    within = gradient[:, columns]
    part = columns.to(gradient)
    if bool((within != 0).float().mean() > 1 - SENT_WHOLE):
        if count >= min(within.shape):
            return None
        _, sizes, rows = torch.linalg.svd(within, full_matrices=False)
        size = min(count, int((sizes > 1e-5 * sizes[0]).sum()))
        if not size or sizes[size - 1] < SPECTRAL_GAP * sizes[size]:
            return None
        span = gradient.new_zeros(size, gradient.shape[1])
        span[:, columns] = rows[:size]
    else:
        completion = complete_rows(gradient.double(), mask.double(), count)
        if completion is None:
            return None
        span, part = (tensor.to(gradient) for tensor in completion)
    first_fc = FirstFullyConnected(weight, gradient, span, known=part)
    if count > 1:
        return first_fc
    maps = span * span.sum().sign()
    products = (mask * maps[0].square()).sum(1).clamp_min(1e-20)
    return replace(first_fc, maps=maps, upstream=((gradient @ maps[0]) / products)[None])


def common_direction(first_fc: FirstFullyConnected) -> Tensor:
    """`[D]`, what the batch's embeddings share: the image of the most positive map in the span."""
    return first_fc.weight @ (first_fc.span.T @ first_fc.span.sum(1))


def embedding_span(first_fc: FirstFullyConnected) -> Tensor:
    """`[N, D]`, rows that span the batch's embeddings: the image of the span of its maps."""
    return first_fc.span @ first_fc.weight.T


def find_linear_layer(model: nn.Module) -> nn.Linear | None:
    """The layer that the map enters (in other networks, `models.foreign_network` finds it)."""
    if not isinstance(model, FaceNet):
        return None
    layer = model.first_fc_layer
    return layer if isinstance(layer, nn.Linear) else None


def leads_to_head(model: nn.Module) -> bool:
    """Whether the head sees the layer's outputs, or is the layer; nothing lies between."""
    if not isinstance(model, FaceNet):
        return False
    if not isinstance(model, ForeignFaceNet) or model.first_fc_layer is model.head:
        return model.first_fc_layer in (model.embedding, model.head)
    layer = find_linear_layer(model)
    return layer is not None and is_class_head(model.head, layer.out_features)


def solve_upstream(first_fc: FirstFullyConnected, features: Tensor) -> Tensor:
    """The a_i `[N, D]` that best explain G, given dummy feature maps `[N, F]` (least squares)."""
    features = first_fc.known_part(features.detach())
    gram = features @ features.T
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    upstream: Tensor = torch.linalg.solve(gram + ridge, features @ first_fc.gradient.T)
    return upstream
