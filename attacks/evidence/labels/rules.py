"""Published rules for labels, and their extension to batches: one look at the head's gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient, unscaled

LOUD = 4.0
"""Scores below this many standard deviations of the noise say nothing."""


def votes(head: HeadGradient) -> Tensor:
    """Signs first, then shares: each class that must be present once, the rest by its score.

    Wainakh et al. (PoPETs 2022) subtract one image's expected impact at a time; here what is left
    goes to the class with the largest share a copy, as in a highest-averages election.
    """
    if head.unit and head.count == 1:
        return torch.tensor([idlg(unscaled(head.gradient, head.weight))])
    return multiset(presence(head), head.count)


def presence(head: HeadGradient) -> Tensor:
    """How present each class is in the batch, `[K]`: positive for those that are, as a rule."""
    if not head.unit:
        return _sums(head)
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
    label = idlg(unscaled(head.gradient, head.weight) if head.unit else head.gradient)
    return torch.full((head.count,), label)


def idlg(gradient: Tensor) -> int:
    """The one row of the head's gradient that points away from all others: iDLG (Zhao et al. 2020).

    At batch 1, row k is (p_k − y_k) · x; only the true class has a negative factor, so its row's
    inner products with the others are negative. Needs no bias and no sign of x.

    Args:
        gradient: `[K, D]`, gradient of the last layer's weight at batch 1.
    """
    products = gradient @ gradient.T
    return int((products.sum(1) - products.diagonal()).argmin())


def multiset(scores: Tensor, count: int) -> Tensor:
    """Labels whose expected contributions add up to `scores`, larger is more present.

    Every present class is taken once, in the order of its score; what is left goes to the class
    with the largest share a copy, as in a highest-averages election.
    """
    present = [int(k) for k in scores.argsort(descending=True) if scores[k] > 0][:count]
    found = present or [int(scores.argmax())]
    while len(found) < count:
        averages = {k: float(scores[k]) / (found.count(k) + 0.5) for k in present or found}
        found.append(max(averages, key=averages.__getitem__))
    return torch.tensor(sorted(found), dtype=torch.int64)


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
    scaled = unscaled(gradient, weight)
    if common is None:
        # The strongest row belongs to a true class as a rule: its factor is near −1.
        common = -scaled[scaled.norm(dim=1).argmax()]
    common = F.normalize(common, dim=0)
    along = unit @ common
    # P_k shortens the common direction by its part along w_k.
    scores: Tensor = -(scaled @ common) / (1 - along.square()).clamp_min(0.1)
    return scores
