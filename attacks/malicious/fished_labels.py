"""Labels of a batch, of which one image was fished."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.shared import Update
from fedaudit.models.class_head import ClassHead

# Set by hand; what it reaches is measured by benchmarks/malicious.py.
PRESENT = 0.2
"""Least length of a head row's gradient, to the longest, that shows its class in the batch."""


def labels_of_fished(
    head: ClassHead,
    update: Update,
    count: int,
    target_class: int,
    mode: Literal["feature", "class"],
) -> Tensor:
    """The batch's labels `[count]`, that of the fished image first.

    Row k is Σ_i (p_ik − y_ik) · x̂_i. Equal rows have equal p, so rows of absent classes are
    all the same, and what is left of the others belongs to the images of their class. An absent
    class is that of the largest entry of the bias; without a bias most classes must be absent.

    Args:
        head: The head that was replaced.
        update: What the client sent.
        count: Images in the batch.
        target_class: The odd row's; negative numbers count from the last class.
        mode: How it was fished.
    """
    sign = 1.0 if update.kind == "gradient" else -1.0
    rows = sign * head.rows(update.tensors[head.name])
    odd = target_class % len(rows)
    others = torch.arange(len(rows), device=rows.device) != odd
    bias = None if head.bias is None else update.tensors.get(head.bias)
    if bias is None:
        absent = rows.median(0).values
    else:
        absent = rows[int((sign * bias).masked_fill(~others, -torch.inf).argmax())]
    own = rows - absent
    sizes = own.norm(dim=1)
    if mode == "class":
        first = odd
    else:
        # Row c holds the fished image, with the opposite sign of the row of its own class.
        alike = F.cosine_similarity(-own, rows[odd][None], dim=1)
        alike[sizes < PRESENT * sizes[others].max()] = -2.0
        alike[odd] = -2.0
        first = int(alike.argmax())
        sizes[odd] = 0.0
    labels = [first]
    least = PRESENT * float(sizes.max())
    present = [int(k) for k in sizes.argsort(descending=True) if sizes[k] > least]
    labels += [k for k in present if k != first][: count - 1]
    while len(labels) < count:
        labels.append(max(labels, key=lambda k: float(sizes[k]) / (labels.count(k) + 0.5)))
    return torch.tensor(labels, dtype=torch.int64, device=rows.device)
