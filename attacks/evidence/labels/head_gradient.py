"""The last layer of a network and its gradient, whatever the head."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor, nn

from fedaudit.attacks.evidence.labels.leading_svd import leading_svd
from fedaudit.models.class_head import ClassHead, find_class_head, head_inputs
from fedaudit.models.facenet import FaceNet, NormedEmbedding, criterion_of
from fedaudit.models.foreign_network import ForeignFaceNet
from fedaudit.models.heads import CosineHead

TURNS = 400
"""Turns by which the span of embeddings is found, as a rule: 20 to 150."""
AGREED, SPANNED = 1e-6, 1e-3
"""Shares of the first singular value: what rounding leaves behind the last, and the least last."""
CENTERED = 0.1
"""Length of the mean embedding, in units of embeddings, up to which it gives no direction."""
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
        centered: The batch's embeddings have no mean: batch norm in training mode comes before.
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
    centered: bool = False


def read_head(
    model: nn.Module,
    target: Mapping[str, Tensor],
    count: int,
    shape: Sequence[int],
    common: Tensor | None = None,
    span: Tensor | None = None,
    noise: Callable[[str], float] = lambda _: 0.0,
) -> HeadGradient | None:
    """The last layer and its gradient, under `noise` by parameter; None where it was not shared.

    `shape` `(C, H, W)` is that of the images by which the head of a stranger's network is found.
    """
    head = class_head(model, shape)
    own = {name: parameter.detach() for name, parameter in model.named_parameters()}
    gradient = None if head is None else head.gradient(target, own)
    if head is None or gradient is None:
        return None
    bias_gradient = None if head.bias is None else target.get(head.bias)
    loss, finish = criterion_of(model), head.finish
    return HeadGradient(
        gradient=gradient,
        bias_gradient=None if bias_gradient is None else bias_gradient[head.kept],
        weight=head.matrix(own),
        bias=None if head.bias is None else own[head.bias][head.kept],
        criterion=lambda scores, labels: loss(finish(scores), labels),
        unit=head.unit,
        count=count,
        common=common,
        span=span,
        noise=noise(head.name),
        centered=common is None and count > 1 and head.unit and _centers(model, count, shape),
    )


def _centers(model: nn.Module, count: int, shape: Sequence[int]) -> bool:
    """Whether what enters the head has no mean over a batch, as batch norm makes it."""
    own = None
    if isinstance(model, FaceNet) and not isinstance(model, ForeignFaceNet):
        own = model
        if not isinstance(own.embedding, NormedEmbedding):
            return False
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, *shape, generator=generator).to(next(model.parameters()))
    with torch.no_grad():
        inputs = own.embedding(own.features(images)) if own else head_inputs(model, images)
    return bool(inputs.mean(0).norm() < CENTERED * inputs.norm(dim=1).mean())


def class_head(model: nn.Module, shape: Sequence[int]) -> ClassHead | None:
    """The head: by its name in networks with the three parts of a `FaceNet`, found in others."""
    if not isinstance(model, FaceNet) or isinstance(model, ForeignFaceNet):
        return find_class_head(model, shape)
    if isinstance(model.head, CosineHead):
        return ClassHead("head.weight", unit=True)
    if isinstance(model.head, nn.Linear):
        return ClassHead("head.weight", None if model.head.bias is None else "head.bias")
    return None


def restore(product: Tensor, weight: Tensor, span: Tensor, *, inside: bool = True) -> Tensor:
    """Σ_i e_i x̂_iᵀ `[K, D]` from the gradient of a head that normalizes its class centers.

    Row k of the gradient is Σ_i e_ik (x̂_i − cos_ik ŵ_k) / |w_k|. All x̂_i lie in the span, so that
    the part of the row outside it is that of ŵ_k alone, and says how much of ŵ_k is missing. What
    is left outside is dropped where `inside`.
    """
    unit = F.normalize(weight, dim=1)
    rows = unscale(product, weight)
    basis = torch.linalg.qr(span.T).Q
    outside = unit - (unit @ basis) @ basis.T
    missing = (rows * outside).sum(1) / outside.square().sum(1).clamp_min(1e-12)
    whole: Tensor = rows - missing[:, None] * unit
    return whole @ basis @ basis.T if inside else whole


def embedding_span_of(product: Tensor, weight: Tensor, count: int) -> Tensor | None:
    """`[N, D]`, rows that span the batch's embeddings, from a margin head's gradient alone.

    With Σ_i e_ik cos_ik ŵ_k put back (`restore`), all rows lie in a space of N dimensions. That
    space and what is missing of each row are found in turn; None where they do not agree in the
    end, or where the embeddings span less, as batch norm in training mode makes them.
    """
    if count >= min(product.shape):
        return None
    rows = unscale(product, weight)
    for _ in range(TURNS):
        sizes, right = leading_svd(rows, count + 1)[1:]
        if sizes[count] < AGREED * sizes[0]:
            break
        rows = restore(product, weight, right[:count], inside=False)
    if not sizes[count] < AGREED * sizes[0] or sizes[count - 1] < SPANNED * sizes[0]:
        return None
    span: Tensor = right[:count]
    return span


def unscale(gradient: Tensor, weight: Tensor) -> Tensor:
    """The rows without the 1/|w_k| that normalizing the class centers puts on them."""
    rows: Tensor = gradient * weight.norm(dim=1, keepdim=True)
    return rows


def upstream_of(
    criterion: Callable[[Tensor, Tensor], Tensor],
    scores: Tensor,
    labels: Tensor,
    *,
    differentiable: bool = False,
) -> Tensor:
    """Each image's slope of its own loss, `[n, K]`, at scores `[n, K]` under labels `[n]`.

    The labels are plain numbers to the criterion, which may look at them: margins by `one_hot` or
    by index cannot be mapped over (`vmap`). Where `differentiable`, the slopes have slopes along
    `scores`, which must ask for gradients.
    """
    with torch.enable_grad():
        at = scores if differentiable else scores.detach().requires_grad_()
        loss = criterion(at, labels) * len(labels)
        (slopes,) = torch.autograd.grad(loss, at, create_graph=differentiable)
    return slopes


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
        upstream = (unscale(head.gradient, head.weight) * along).sum(1) / along.square().sum(1)
    elif head.bias is not None and head.bias_gradient is not None:
        upstream = head.bias_gradient
        x = upstream @ head.gradient / upstream.square().sum()
        scores = head.weight @ x + head.bias
    else:
        return None
    scores = scores.detach()
    classes = torch.arange(len(scores), device=scores.device)
    each = upstream_of(head.criterion, scores.expand(len(scores), -1), classes).double()
    total = each.abs().mean() * len(scores)  # weighs the sum of all like any other equation
    system = torch.cat([each.T, total.expand(1, len(scores))])
    target = torch.cat([upstream.double(), total[None]])
    coefficients = torch.from_numpy(nnls(system.cpu().numpy(), target.cpu().numpy())[0])
    coefficients = torch.where(coefficients < FAINT, 0.0, coefficients)
    return (coefficients / coefficients.sum()).to(head.gradient)
