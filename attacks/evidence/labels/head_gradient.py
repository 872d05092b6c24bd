"""The last layer of a network and its gradient, whatever the head."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor, nn

from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.foreign_network import ForeignFaceNet
from fedaudit.models.heads import CosineHead, LinearHead

FAINT = 1e-3
"""Least probability that rounding does not explain."""


@dataclass(frozen=True)
class HeadGradient:
    """What is known of the last layer.

    Attributes:
        gradient: `[K, D]`, mean over the batch.
        bias_gradient: `[K]`; None for heads without bias.
        weight, bias: `[K, D]`; `[K]` or None.
        criterion: The loss, mean over the batch.
        unit: The head sees unit vectors and has unit class centers (CosFace, ArcFace).
        count: Number of images N.
        common: `[D]`, direction that the batch's embeddings share, where it is known.
        span: `[≥ N, D]`, rows that span the batch's embeddings, where they are known.
        noise: Standard deviation of the noise on `gradient`.
    """

    gradient: Tensor
    bias_gradient: Tensor | None
    weight: Tensor
    bias: Tensor | None
    criterion: Callable[[Tensor, Tensor], Tensor]
    unit: bool
    count: int
    common: Tensor | None = None
    span: Tensor | None = None
    noise: float = 0.0


def read_head(
    model: nn.Module,
    target: Mapping[str, Tensor],
    count: int,
    common: Tensor | None = None,
    span: Tensor | None = None,
    noise: Callable[[str], float] = lambda _: 0.0,
) -> HeadGradient | None:
    """The last layer and its gradient, under `noise` by parameter; None where it was not shared."""
    name, head = _head(model)
    gradient = target.get(name)
    if gradient is None or not isinstance(head, nn.Linear | CosineHead):
        return None
    unit = isinstance(head, CosineHead)
    bias = head.bias if isinstance(head, nn.Linear) else None
    return HeadGradient(
        gradient=gradient,
        bias_gradient=target.get(name.removesuffix("weight") + "bias"),
        weight=head.weight.detach(),
        bias=None if bias is None else bias.detach(),
        criterion=criterion_of(model),
        unit=unit,
        count=count,
        common=common,
        span=span,
        noise=noise(name),
    )


def restored(product: Tensor, weight: Tensor, span: Tensor) -> Tensor:
    """Σ_i e_i x̂_iᵀ `[K, D]` from the gradient of a head that normalizes its class centers.

    Row k of the gradient is Σ_i e_ik (x̂_i − cos_ik ŵ_k) / |w_k|. All x̂_i lie in the span, so that
    the part of the row outside it is that of ŵ_k alone, and says how much of ŵ_k is missing.
    """
    unit = F.normalize(weight, dim=1)
    rows = unscaled(product, weight)
    inside = torch.linalg.qr(span.T).Q
    outside = unit - (unit @ inside) @ inside.T
    missing = (rows * outside).sum(1) / outside.square().sum(1).clamp_min(1e-12)
    restored: Tensor = (rows - missing[:, None] * unit) @ inside @ inside.T
    return restored


def unscaled(gradient: Tensor, weight: Tensor) -> Tensor:
    """The rows without the 1/|w_k| that normalizing the class centers puts on them."""
    rows: Tensor = gradient * weight.norm(dim=1, keepdim=True)
    return rows


def _head(model: nn.Module) -> tuple[str, nn.Module]:
    if isinstance(model, FaceNet) and not isinstance(model, ForeignFaceNet):
        return "head.weight", model.head
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | LinearHead)]
    return (f"{linear[-1][0]}.weight", linear[-1][1]) if linear else ("", model)


def mixed_label(head: HeadGradient, place: Tensor) -> Tensor | None:
    """Class probabilities `[K]` of the one mixed image behind the head's gradient, in closed form.

    For one image, the gradient upstream at the scores is e = Σ_k y_k e(k), where e(k) is what it
    would be with the label k alone. With what the head saw known, the gradient of its weight shows
    e, each e(k) can be computed, and y is the only unknown: K linear equations, and Σ_k y_k = 1.

    `place` `[D]` is the direction of what the head saw; of a head without margin its length shows
    in the gradient of the bias, so that a head of plain scores without bias gives None.
    """
    if head.unit:
        x = F.normalize(place, dim=0)
        rows = F.normalize(head.weight, dim=1)
        scores = rows @ x
        # Row k of the gradient is e_k (x − cos_k w_k) / |w_k|.
        along = x - scores[:, None] * rows
        upstream = (unscaled(head.gradient, head.weight) * along).sum(1) / along.square().sum(1)
    elif head.bias is not None and head.bias_gradient is not None:
        upstream = head.bias_gradient
        x = upstream @ head.gradient / upstream.square().sum()
        scores = head.weight @ x + head.bias
    else:
        return None
    scores = scores.detach()
    classes = torch.arange(len(scores), device=scores.device)

    def one(label: Tensor) -> Tensor:
        slope: Tensor = torch.func.grad(lambda s: head.criterion(s[None], label[None]))(scores)
        return slope

    each = torch.func.vmap(one)(classes).double()
    total = each.abs().mean() * len(scores)  # weighs the sum of all like any other equation
    system = torch.cat([each.T, total.expand(1, len(scores))])
    wanted = torch.cat([upstream.double(), total[None]])
    coefficients = torch.from_numpy(nnls(system.cpu().numpy(), wanted.cpu().numpy())[0])
    coefficients = torch.where(coefficients < FAINT, 0.0, coefficients)
    return (coefficients / coefficients.sum()).to(head.gradient)
