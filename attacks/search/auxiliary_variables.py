"""What a match searches beside the images: upstream gradients, or soft labels."""

import torch
from torch import Tensor, nn

from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.core.errors import AttackError
from fedaudit.models.heads import CosineHead


def auxiliary_variables(
    evidence: Evidence,
    public: nn.Module | None,
    restarts: int,
    generator: torch.Generator | None,
    searched: bool,
) -> tuple[Tensor, ...]:
    """A leaf `[R, …]` an image: upstream gradients of unit length, or logits of soft labels.

    Args:
        evidence: What was gathered.
        public: The part of the network at whose end gradients arrive; None for soft labels.
        restarts: R.
        generator: Of the start.
        searched: The head that soft labels go with is the client's own.

    Raises:
        AttackError: Soft labels with a margin head.
    """
    model = evidence.model
    empty = next(iter(evidence.target.values())).new_zeros(1, *evidence.shape)
    if public is None and searched and isinstance(getattr(model, "head", None), CosineHead):
        raise AttackError(
            "a soft label needs a cross-entropy of plain scores, and this network has a "
            "margin head: use an attack that infers the labels first, such as idlg"
        )
    with torch.no_grad():
        width = (public or model)(empty).shape[1]
    scale = width**-0.5 if public is not None else 1.0
    draws = [
        torch.randn(evidence.count, width, generator=generator) * scale for _ in range(restarts)
    ]
    start = torch.stack(draws, dim=1).to(empty)
    return tuple(rows.clone().requires_grad_() for rows in start)
