"""Projections onto the sets that a search must stay in."""

import torch
from torch import Tensor


def project_l1(value: Tensor, center: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest point `[N, …]` of an l1 ball, for each image on its own.

    Duchi et al. (ICML 2008), by sorting: the distances to `center` shrink by the one threshold that
    leaves their sum at `radius` ≥ 0, for all or `[N]`. GIFD (Fang et al., ICCV 2023) keeps a
    generator's inner feature map in such a ball around its start.

    >>> project_l1(torch.tensor([[3.0, 1.0]]), torch.zeros(1, 2), 2.0)
    tensor([[2., 0.]])
    """
    center = center.expand_as(value)
    offset = (value - center).flatten(1)
    radii = torch.as_tensor(radius, dtype=value.dtype, device=value.device).reshape(-1, 1)
    if bool((radii < 0).any()):
        raise ValueError("the radius of an l1 ball must be ≥ 0")
    size = offset.abs()
    magnitudes = size.sort(dim=1, descending=True).values
    ranks = torch.arange(1, magnitudes.shape[1] + 1, device=value.device)
    # In double: the sum of a large map in single precision would be off by more than the threshold.
    excess = magnitudes.double().cumsum(1) - radii
    shrinking = (magnitudes * ranks > excess).sum(1, keepdim=True).clamp(min=1)
    threshold = (excess.gather(1, shrinking - 1) / shrinking).clamp(min=0).to(value.dtype)
    shrunk = offset.sign() * (size - threshold).clamp(min=0)
    inside = size.double().sum(1, keepdim=True) <= radii
    return torch.where(inside, value.flatten(1), center.flatten(1) + shrunk).view_as(value)
