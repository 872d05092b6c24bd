"""What the first fully connected layer after the feature map gives away, in closed form.

Its weight gradient is a sum over images, G = Σ_i a_i f_iᵀ: a_i is its upstream gradient, f_i the
flattened feature map. So the row space of G is spanned by the maps of the batch. At batch 1 that is
the map itself, whatever the label, the head or its bias. At batch N, with the head and the labels
known, a_i is a function of f_i, which lets the sum be taken apart by a fixed-point iteration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.models.class_head import is_class_head
from fedaudit.models.facenet import FaceNet
from fedaudit.models.foreign_network import ForeignFaceNet
from fedaudit.models.soft_labels import loss_on

SPECTRAL_GAP = 2.0
"""The signal's singular values must exceed those behind them by this factor to count as signal."""
SENT_WHOLE = 0.01
"""Share of zeros up to which columns of which something was sent count as sent whole."""
COMPLETIONS = 100
"""Iterations of the completion of a gradient with missing entries."""
UNEXPLAINED = 0.1
"""Largest relative residual of a completion: without noise it is exact, or far off."""
UNMIXED = 0.02
"""Largest relative residual of G at which a batch counts as taken apart."""


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

    With `maps` at batch 1 (beyond it see `take_apart`); None where the layer was not shared, or its
    signal drowns in noise. `sparse`: zeros stand for entries that were not sent (pruning, Soteria).
    """
    layer = _layer(model)
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
        completion = _complete(gradient.double(), mask.double(), count)
        if completion is None:
            return None
        span, part = (tensor.to(gradient) for tensor in completion)
    first_fc = FirstFullyConnected(weight, gradient, span, known=part)
    if count > 1:
        return first_fc
    maps = span * span.sum().sign()
    products = (mask * maps[0].square()).sum(1).clamp_min(1e-20)
    return replace(first_fc, maps=maps, upstream=((gradient @ maps[0]) / products)[None])


def _complete(gradient: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """Row space `[N, F]` of the matrix of rank N that agrees with what was sent; None without one.

    Columns of which fewer than N entries were sent stay 0; also returns which the others are.
    """
    columns = (mask.sum(0) >= count).to(gradient)
    gradient, mask = gradient * columns, mask * columns
    if int(columns.sum()) <= count or count >= min(gradient.shape):
        return None
    toward = torch.linalg.svd(gradient, full_matrices=False)[0][:, :count]
    rows = gradient[:count]
    for _ in range(COMPLETIONS):
        rows = _fit(gradient.T, mask.T, toward).T * columns
        rows = torch.linalg.svd(rows, full_matrices=False)[2]
        toward = _fit(gradient, mask, rows.T)
    left = (gradient - mask * (toward @ rows)).norm() / gradient.norm()
    # Written so that NaN, from a singular system, counts as a failure.
    return (rows, columns) if left < UNEXPLAINED else None


def _fit(gradient: Tensor, mask: Tensor, other: Tensor) -> Tensor:
    """`[R, N]`: each row's factors, by least squares over the entries of it that were sent."""
    products = other[:, :, None] * other[:, None]
    gram = torch.tensordot(mask, products, 1)
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).mean() * torch.eye(other.shape[1]).to(gram)
    factors: Tensor = torch.linalg.solve(gram + ridge, (gradient @ other)[..., None])[..., 0]
    return factors


def take_apart(
    first_fc: FirstFullyConnected, model: nn.Module, labels: Tensor, steps: int = 60
) -> FirstFullyConnected:
    """Each image's own feature map, given the head, and labels `[N]` or probabilities `[N, K]`.

    Fixed point of: maps → upstream gradients (through the known head) → maps (least squares). At
    batch 1 only the sign of the map is decided. Unchanged where the iteration does not explain the
    gradient, as with repeated labels or a head that fits the batch already.
    """
    layer = _layer(model)
    if layer is None or not isinstance(model, FaceNet):
        return first_fc
    if first_fc.known is not None:
        return first_fc  # the head sees the whole maps
    bias = None if layer.bias is None else layer.bias.detach()

    def upstream(outputs: Tensor) -> Tensor:
        outputs = outputs.detach().requires_grad_()
        scores = model.after_first_fc(outputs)
        (grad,) = torch.autograd.grad(loss_on(model.criterion, scores, labels), outputs)
        return grad

    if first_fc.maps is not None and first_fc.upstream is not None:
        # One image: all that is open is the sign of its map, which the head decides.
        agreement = (
            upstream(F.linear(first_fc.maps, first_fc.weight, bias)) * first_fc.upstream
        ).sum()
        return (
            first_fc
            if agreement >= 0
            else replace(first_fc, maps=-first_fc.maps, upstream=-first_fc.upstream)
        )
    if len(torch.unique(labels, dim=0)) < len(labels):
        return first_fc  # images of one class share their a_i nearly: many splits explain the sum
    # A start that knows the labels only: a tiny, even embedding has no opinion about its class.
    toward = upstream(torch.full((len(labels), len(first_fc.gradient)), 1e-3))
    maps = first_fc.span
    for _ in range(steps):
        # Not torch.linalg.lstsq: its result differs from call to call in the last bits.
        maps = torch.linalg.pinv(toward.T) @ first_fc.gradient
        # A flipped map would start the iteration on the wrong side.
        maps = maps * maps.sum(1, keepdim=True).sign()
        toward = upstream(F.linear(maps, first_fc.weight, bias))
    residual = (first_fc.gradient - toward.T @ maps).norm() / first_fc.gradient.norm()
    # Written so that NaN, from a singular system, counts as a failure.
    return replace(first_fc, maps=maps, upstream=toward) if residual < UNMIXED else first_fc


def likeliest_label(
    first_fc: FirstFullyConnected,
    model: nn.Module,
    target: Mapping[str, Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """`[1]`, the label under which one image's known map explains most of what follows the body.

    Noise moves each row of the head's gradient, and pruning leaves out most of them; all together,
    with the upstream gradient at the first fully connected layer, tell classes apart much longer.
    The best factor is taken for each class, as the length of the map is not known.
    """
    layer = _layer(model)
    assert first_fc.maps is not None
    assert isinstance(model, FaceNet)
    assert layer is not None
    tail = {n: p for n, p in model.named_parameters() if n in target and not n.startswith("body.")}
    with torch.no_grad():  # heads of other people's networks have names of their own
        classes = model.after_first_fc(F.linear(first_fc.maps, layer.weight, layer.bias)).shape[1]
    best, likeliest = -1.0, 0
    for label in range(classes):
        outputs = F.linear(first_fc.maps, layer.weight, layer.bias)
        scores = model.after_first_fc(outputs)
        loss = model.criterion(scores, torch.tensor([label], device=scores.device))
        slopes = torch.autograd.grad(loss, list(tail.values()), allow_unused=True)
        pairs = [(s, target[n]) for s, n in zip(slopes, tail, strict=True) if s is not None]
        pairs = [(s * (t != 0), t) for s, t in pairs] if sparse else pairs
        dot = float(torch.stack([(s * t).sum() for s, t in pairs]).sum())
        length = float(torch.stack([s.square().sum() for s, _ in pairs]).sum().sqrt())
        if length and dot / length > best:
            best, likeliest = dot / length, label
    return torch.tensor([likeliest])


def place_maps(
    first_fc: FirstFullyConnected, model: nn.Module, places: Tensor
) -> FirstFullyConnected:
    """Each image's own feature map, where the head's inputs `places` `[N, D]` are known (`solver`).

    Needs no labels, and minds neither repeated ones nor a head that fits the batch. Unchanged where
    the places, or their directions, do not explain the gradient.
    """
    layer = _layer(model)
    if layer is None or not isinstance(model, FaceNet) or first_fc.known is not None:
        return first_fc
    if not leads_to_head(model):
        return first_fc
    gradient, span = first_fc.gradient.double(), first_fc.span.double()
    if layer is model.head:
        maps = places.double()
    else:
        if layer.bias is not None:
            places = places - layer.bias.detach()
        maps = places.double() @ torch.linalg.pinv(span @ first_fc.weight.double().T) @ span
    upstream = torch.linalg.pinv(maps.T) @ gradient.T
    residual = (gradient - upstream.T @ maps).norm() / gradient.norm()
    if not residual < UNMIXED:
        return first_fc
    return replace(
        first_fc, maps=maps.to(first_fc.gradient), upstream=upstream.to(first_fc.gradient)
    )


def common_direction(first_fc: FirstFullyConnected) -> Tensor:
    """`[D]`, what the batch's embeddings share: the image of the most positive map in the span."""
    return first_fc.weight @ (first_fc.span.T @ first_fc.span.sum(1))


def embedding_span(first_fc: FirstFullyConnected) -> Tensor:
    """`[N, D]`, rows that span the batch's embeddings: the image of the span of its maps."""
    return first_fc.span @ first_fc.weight.T


def _layer(model: nn.Module) -> nn.Linear | None:
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
    layer = _layer(model)
    return layer is not None and is_class_head(model.head, layer.out_features)


def solve_upstream(first_fc: FirstFullyConnected, features: Tensor) -> Tensor:
    """The a_i `[N, D]` that best explain G, given dummy feature maps `[N, F]` (least squares)."""
    features = first_fc.known_part(features.detach())
    gram = features @ features.T
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    upstream: Tensor = torch.linalg.solve(gram + ridge, features @ first_fc.gradient.T)
    return upstream
