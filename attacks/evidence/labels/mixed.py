"""The label of one mixed image, coefficients and all, from the head's gradient in closed form.

For one image, the gradient upstream at the scores is e = Σ_k y_k e(k), where e(k) is what it would
be with the label k alone. With what the head saw known, the gradient of its weight shows e, each
e(k) can be computed, and y is the only unknown: K linear equations, and Σ_k y_k = 1.
"""

import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor

from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient, unscaled

FAINT = 1e-3
"""Least probability that rounding does not explain."""


def mixed_label(head: HeadGradient, place: Tensor) -> Tensor | None:
    """Class probabilities `[K]` of the one image behind the head's gradient.

    Args:
        head: Its gradient, of one image.
        place: `[D]`, the direction of what the head saw; of a head without margin its length shows
            in the gradient of the bias.

    Returns:
        None for a head of plain scores without bias, where the length does not show.
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
        found: Tensor = torch.func.grad(lambda s: head.criterion(s[None], label[None]))(scores)
        return found

    each = torch.func.vmap(one)(classes).double()
    total = each.abs().mean() * len(scores)  # weighs the sum of all like any other equation
    system = torch.cat([each.T, total.expand(1, len(scores))])
    wanted = torch.cat([upstream.double(), total[None]])
    coefficients = torch.from_numpy(nnls(system.cpu().numpy(), wanted.cpu().numpy())[0])
    coefficients = torch.where(coefficients < FAINT, 0.0, coefficients)
    return (coefficients / coefficients.sum()).to(head.gradient)
