"""Labels from the gradient of the head."""

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heapreplace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.labels.head_gradient import (
    HeadGradient,
    embedding_span_of,
    read_head,
    restore,
    unscale,
)
from fedaudit.attacks.evidence.labels.solver import Solved, is_affordable, solve_head
from fedaudit.core.errors import UnknownNameError

LOUD = 4.0
"""Scores below this many standard deviations of the noise say nothing."""
LONG = 0.5
"""Length of a row, to the longest, from which on its class counts as present."""
FEW_CLASSES = 64
"""Classes up to which all are tried."""
CHANCES = 4
"""Classes tried for each image, of many."""
__all__ = ["RULES", "LabelRule", "idlg", "infer_labels", "share_out", "solve", "solve_all"]

LabelRule = Callable[[HeadGradient], Tensor]
"""The batch's labels, `[N]` int64 ascending, from the head's gradient."""


def votes(head: HeadGradient) -> Tensor:
    """Labels by the signs of the head's gradient, then by `multiset` (Wainakh et al., PoPETs 2022).

    They subtract one image's expected impact at a time. One image alone is read as in `idlg`, where
    no bias tells the rows' signs.
    """
    # A row's sum tells its sign for inputs ≥ 0 alone, and two opposite rows are each as long.
    exact = head.bias_gradient is None and not head.noise and len(head.gradient) > 2
    if head.count == 1 and not head.unit and exact:
        return torch.tensor([idlg(head.gradient)])
    if head.unit and head.count == 1:
        return torch.tensor([idlg(unscale(head.gradient, head.weight))])
    return multiset(presence(head), head.count)


def presence(head: HeadGradient) -> Tensor:
    """How present each class is in the batch, `[K]`: positive for those that are, as a rule."""
    if not head.unit:
        return _sums(head)
    if head.centered:  # no direction is common; a true class's row is long
        sizes = unscale(head.gradient, head.weight).norm(dim=1)
        present: Tensor = sizes - LONG * sizes.max()
        return present
    scores = _margin_head_scores(head.gradient, head.weight, head.common)
    heard = LOUD * head.noise * float(head.weight.norm(dim=1).max())
    # More classes than images cannot be present: the common direction pointed backwards.
    return -scores if (scores > heard).sum() > head.count else scores


def bias_sums(head: HeadGradient) -> Tensor:
    """The N classes with the least bias gradient, or row sum: each at most once.

    Zhao et al. (iDLG, 2020) for a batch, as common tools do it.
    """
    return _distinct(_sums(head), head.count)


def row_minimum(head: HeadGradient) -> Tensor:
    """The N classes whose row has the least entry: each at most once.

    Yin et al. (GradInversion, CVPR 2021, eq. 8); for inputs of the head that are not negative.
    """
    return _distinct(-head.gradient.min(1).values, head.count)


def sign_of_row(head: HeadGradient) -> Tensor:
    """The row that points away from all others (Zhao et al., iDLG, 2020), N times."""
    label = idlg(unscale(head.gradient, head.weight) if head.unit else head.gradient)
    return torch.full((head.count,), label)


def idlg(gradient: Tensor) -> int:
    """The one row of the head's gradient `[K, D]` that points away from all others: iDLG.

    Zhao et al. 2020: at batch 1, row k is (p_k − y_k) · x; only the true class has a negative
    factor, so its row's inner products with the others are negative. Needs no bias and no sign of
    x.
    """
    products = gradient @ gradient.T
    return int((products.sum(1) - products.diagonal()).argmin())


def multiset(scores: Tensor, count: int) -> Tensor:
    """Labels whose expected contributions add up to `scores`, larger is more present.

    Every present class is taken once, in the order of its score; what is left goes to the class
    with the largest share a copy, as in a highest-averages election.
    """
    order = scores.argsort(descending=True)
    present: list[int] = order[scores[order] > 0][:count].tolist()
    labels = present or [int(scores.argmax())]
    # The largest average first; of equal ones that of the higher score, as it comes first.
    shares = [(-float(scores[k]) / 1.5, place, k, 1) for place, k in enumerate(labels)]
    heapify(shares)
    while len(labels) < count:
        _, place, k, copies = shares[0]
        labels.append(k)
        heapreplace(shares, (-float(scores[k]) / (copies + 1.5), place, k, copies + 1))
    return torch.tensor(sorted(labels), dtype=torch.int64)


def _sums(head: HeadGradient) -> Tensor:
    """How negative each class's factor is, by the bias or, with inputs ≥ 0, by the row's sum."""
    return -head.gradient.sum(1) if head.bias_gradient is None else -head.bias_gradient


def _distinct(scores: Tensor, count: int) -> Tensor:
    """The classes with the largest scores; all of them over again where there are too few."""
    order = scores.argsort(descending=True, stable=True)
    return order.repeat(count // len(order) + 1)[:count].sort().values


def _margin_head_scores(gradient: Tensor, weight: Tensor, common: Tensor | None) -> Tensor:
    """How negative each row's factor is, for heads on unit vectors and without bias.

    Row k is s/|w_k| · Σ_i (p_ik − y_ik) · P_k x̂_i, where P_k removes the part along w_k. The faces
    of a batch share a large common direction in the embedding; along it a row's sign is the sign of
    its factor, negative only for classes in the batch.
    """
    unit = F.normalize(weight, dim=1)
    rows = unscale(gradient, weight)
    if common is None:
        # The strongest row belongs to a true class as a rule: its factor is near −1.
        common = -rows[rows.norm(dim=1).argmax()]
    common = F.normalize(common, dim=0)
    along = unit @ common
    # P_k shortens the common direction by its part along w_k.
    scores: Tensor = -(rows @ common) / (1 - along.square()).clamp_min(0.1)
    return scores


def infer_labels(
    model: nn.Module,
    target: Mapping[str, Tensor],
    count: int,
    shape: Sequence[int],
    common: Tensor | None = None,
    span: Tensor | None = None,
    rule: str = "solve",
) -> Tensor | None:
    """The batch's labels, `[count]` int64, as a multiset in ascending order; None without the head.

    Args:
        model: The network, for its head's weights.
        target: Mean gradient by parameter name.
        count: Number of images.
        shape: `(C, H, W)` of an image.
        common: `[D]`, direction that the batch's embeddings share, where it is known.
        span: `[n, D]`, rows that span the batch's embeddings, where they are known; margin heads
            are solved exactly with it only.
        rule: A name in `RULES`.

    Raises:
        UnknownNameError: No such rule.
    """
    if rule not in RULES:
        raise UnknownNameError("label rule", rule, RULES)
    head = read_head(model, target, count, shape, common, span)
    return None if head is None else RULES[rule](head)


def solve_all(head: HeadGradient, labels: Tensor | None = None) -> Solved | None:
    """Every image's label and place before the head, solved for (`solver`).

    Of many classes those are tried that the votes put first; where `labels` are known, theirs
    alone. None where the equations do not hold, as for one image (closed forms are exact) and a
    margin head whose embeddings' span is not known; or where they would take too long.
    """
    if head.count == 1:
        return None
    classes = len(head.gradient)
    candidates = _shortlist(head) if labels is None else torch.unique(labels)
    if not is_affordable(classes, classes if candidates is None else len(candidates), head.count):
        return None
    product, weight = head.gradient.double() * head.count, head.weight.double()
    if head.unit:
        span = head.span
        if span is None:
            span = embedding_span_of(product, weight, head.count)
        if span is None or span.shape[0] >= span.shape[1]:
            return None
        product = restore(product, weight, span.double())
        weight = F.normalize(weight, dim=1)
    return solve_head(
        product,
        head.count,
        weight,
        head.bias,
        head.criterion,
        unit=head.unit,
        generator=torch.Generator().manual_seed(0),
        classes=candidates,
    )


def _shortlist(head: HeadGradient) -> Tensor | None:
    """Classes `[n]` that are likely enough to be in the batch; None for all of a few."""
    if len(head.gradient) <= FEW_CLASSES:
        return None
    most = max(FEW_CLASSES // 2, CHANCES * head.count)
    return presence(head).argsort(descending=True, stable=True)[:most].sort().values


def solve(head: HeadGradient) -> Tensor:
    """Solve the head's equations for each image; what cannot be solved is shared out by `votes`."""
    return share_out(head, solve_all(head))


def share_out(head: HeadGradient, solution: Solved | None) -> Tensor:
    """All labels, given what was solved for.

    Where only a part was found, it is used if it is sound: one person's photos that look alike to a
    linear head make an ill-conditioned gradient, and that false solutions. Then all is put to the
    vote. For margin heads, whose votes are weaker, a part is always better.
    """
    if solution is not None and solution.complete:
        return solution.labels
    if solution is None or not len(solution.labels) or not (solution.sound or head.unit):
        return votes(head)
    if not solution.left:
        return solution.labels
    scores = -(solution.rest @ solution.places.mean(0))
    return torch.cat([solution.labels, multiset(scores, solution.left)]).sort().values


RULES: Mapping[str, LabelRule] = {
    "solve": solve,
    "votes": votes,
    "bias": bias_sums,
    "grad_inversion": row_minimum,
    "idlg": sign_of_row,
}
"""The rules by name; `solve` is the strongest, the others are what was published."""
