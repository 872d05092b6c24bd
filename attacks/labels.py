"""Labels from the gradient of the head, in closed form."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.models.facenet import FaceNet
from fedaudit.models.heads import CosineHead, LinearHead


def infer_labels(
    model: nn.Module, target: Mapping[str, Tensor], count: int, common: Tensor | None = None
) -> Tensor | None:
    """The batch's labels, as a multiset in ascending order.

    Args:
        model: The network, for its head's weights.
        target: Mean gradient by parameter name.
        count: Number of images.
        common: `[D]`, direction that the batch's embeddings share, where it is known.

    Returns:
        `[count]` int64; None where the head's gradient was not shared.
    """
    weight_name, head = _head(model)
    gradient = target.get(weight_name)
    if gradient is None:
        return None
    if isinstance(head, CosineHead):
        if count == 1:
            return torch.tensor([idlg(_unscaled(gradient, head.weight.detach()))])
        scores = _margin_head_scores(gradient, head.weight.detach(), common)
        if (scores > 0).sum() > count:
            # More classes than images cannot be present: the common direction pointed backwards.
            scores = -scores
    else:
        bias = target.get(weight_name.removesuffix("weight") + "bias")
        scores = -gradient.sum(1) if bias is None else -bias
    return _multiset(scores, count)


def idlg(gradient: Tensor) -> int:
    """The one row of the head's gradient that points away from all others: iDLG (Zhao et al. 2020).

    At batch 1, row k is (p_k − y_k) · x; only the true class has a negative factor, so its row's
    inner products with the others are negative. Needs no bias and no sign of x.

    Args:
        gradient: `[K, D]`, gradient of the last layer's weight at batch 1.
    """
    products = gradient @ gradient.T
    return int((products.sum(1) - products.diagonal()).argmin())


def _margin_head_scores(gradient: Tensor, weight: Tensor, common: Tensor | None) -> Tensor:
    """How negative each row's factor is, for heads on unit vectors and without bias.

    Row k is s/|w_k| · Σ_i (p_ik − y_ik) · P_k x̂_i, where P_k removes the part along w_k. The faces
    of a batch share a large common direction in the embedding; along it a row's sign is the sign of
    its factor, negative only for classes in the batch.
    """
    unit = F.normalize(weight, dim=1)
    scaled = _unscaled(gradient, weight)
    if common is None:
        # The strongest row belongs to a true class as a rule: its factor is near −1.
        common = -scaled[scaled.norm(dim=1).argmax()]
    common = F.normalize(common, dim=0)
    along = unit @ common
    # P_k shortens the common direction by its part along w_k.
    scores: Tensor = -(scaled @ common) / (1 - along.square()).clamp_min(0.1)
    return scores


def _unscaled(gradient: Tensor, weight: Tensor) -> Tensor:
    """The rows without the 1/|w_k| that normalizing the class centers puts on them."""
    rows: Tensor = gradient * weight.norm(dim=1, keepdim=True)
    return rows


def _multiset(scores: Tensor, count: int) -> Tensor:
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


def _head(model: nn.Module) -> tuple[str, nn.Module]:
    if isinstance(model, FaceNet):
        return "head.weight", model.head
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | LinearHead)]
    return (f"{linear[-1][0]}.weight", linear[-1][1]) if linear else ("", model)
