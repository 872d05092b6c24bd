"""Labels from the gradient of the head."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient, read_head, restored
from fedaudit.attacks.evidence.labels.rules import (
    bias_sums,
    idlg,
    multiset,
    row_minimum,
    sign_of_row,
    votes,
)
from fedaudit.attacks.evidence.labels.solver import Solved, solve_head
from fedaudit.core.errors import UnknownNameError

__all__ = ["RULES", "LabelRule", "idlg", "infer_labels", "share_out", "solve", "solved"]

LabelRule = Callable[[HeadGradient], Tensor]
"""The batch's labels, `[N]` int64 ascending, from the head's gradient."""


def infer_labels(
    model: nn.Module,
    target: Mapping[str, Tensor],
    count: int,
    common: Tensor | None = None,
    span: Tensor | None = None,
    rule: str = "solve",
) -> Tensor | None:
    """The batch's labels, as a multiset in ascending order.

    Args:
        model: The network, for its head's weights.
        target: Mean gradient by parameter name.
        count: Number of images.
        common: `[D]`, direction that the batch's embeddings share, where it is known.
        span: `[n, D]`, rows that span the batch's embeddings, where they are known; margin heads
            are solved exactly with it only.
        rule: A name in `RULES`.

    Returns:
        `[count]` int64; None where the head's gradient was not shared.

    Raises:
        UnknownNameError: No such rule.
    """
    if rule not in RULES:
        raise UnknownNameError("label rule", rule, RULES)
    head = read_head(model, target, count, common, span)
    return None if head is None else RULES[rule](head)


def solved(head: HeadGradient) -> Solved | None:
    """Every image's label and place before the head, solved for (`attacks.labels.solver`).

    None where the equations do not hold: one image (closed forms are exact), a margin head whose
    embeddings' span is not known.
    """
    product = head.gradient.double() * head.count
    weight = head.weight.double()
    if head.count == 1:
        return None
    if head.unit:
        if head.span is None or head.span.shape[0] >= head.span.shape[1]:
            return None
        product = restored(product, weight, head.span.double())
        weight = F.normalize(weight, dim=1)
    return solve_head(
        product,
        head.count,
        weight,
        head.bias,
        head.criterion,
        unit=head.unit,
        generator=torch.Generator().manual_seed(0),
    )


def solve(head: HeadGradient) -> Tensor:
    """Solve the head's equations for each image; what cannot be solved is shared out by `votes`."""
    return share_out(head, solved(head))


def share_out(head: HeadGradient, found: Solved | None) -> Tensor:
    """All labels, given what was solved for.

    Where only a part was found, it is used if it is sound: one person's photos that look alike to a
    linear head make an ill-conditioned gradient, and that false solutions. Then all is put to the
    vote. For margin heads, whose votes are weaker, a part is always better.
    """
    if found is not None and found.complete:
        return found.labels
    if found is None or not len(found.labels) or not (found.sound or head.unit):
        return votes(head)
    if not found.left:
        return found.labels
    scores = -(found.rest @ found.places.mean(0))
    return torch.cat([found.labels, multiset(scores, found.left)]).sort().values


RULES: Mapping[str, LabelRule] = {
    "solve": solve,
    "votes": votes,
    "bias": bias_sums,
    "grad_inversion": row_minimum,
    "idlg": sign_of_row,
}
"""The rules by name; `solve` is the strongest, the others are what was published."""
