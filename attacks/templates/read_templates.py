"""The templates among what was shared: where the server holds a vector for a face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import ClassEmbeddings, ClusterCenters, SummedRows

HEAD_ROWS = "head.weight"
KINDS = frozenset({ClassEmbeddings, ClusterCenters, SummedRows})
"""Kinds of shared things that hold templates."""


def single_owner_rows(
    total: Tensor, before: Tensor, owners: Sequence[int], weights: Sequence[float]
) -> Tensor:
    """The rows `[P, D]` that each client put into a secure sum of matrices, exactly.

    Every client sends the whole matrix, of which it changes its own rows only; the server knows
    what it had sent. So of a row of client k the sum is w_k·W_k + (Σw − w_k)·W_before, and W_k is
    what remains. Derived; FedFace (Aggarwal et al. 2021) and FedGC (Niu & Deng 2022) have such
    rows.

    Args:
        total: `[P, D]` the sum Σ_k w_k · W_k.
        before: `[P, D]` what the server had sent to everybody; zeros for sums of deltas.
        owners: `[P]` the one client that changes each row.
        weights: w_k of each client: 1 each, or its number of images, which travels in clear.

    Raises:
        AttackError: A row's owner has no weight, or a weight of zero.
    """
    if any(not 0 <= k < len(weights) or weights[k] <= 0 for k in owners):
        raise AttackError(
            "every owner must be one of the clients of the sum, with a weight above 0: "
            f"{len(weights)} weights were given."
        )
    own = total.new_tensor([weights[k] for k in owners])[:, None].double()
    rest = sum(weights) - own
    return ((total.double() - rest * before.double()) / own).to(total.dtype)


def rows_of_sum(sent: SummedRows, before: Mapping[str, Tensor]) -> Tensor:
    """Every client's own rows `[P, D]`, out of what a secure aggregator let the server see.

    A client can only put in what it has received: where the server broadcasts everybody's rows,
    those of others are in the sum as they were; where it sends each client its own, and in round 1,
    zeros are.

    Raises:
        AttackError: A row that nobody owns.
    """
    rows_before = before.get(HEAD_ROWS)
    everybody = rows_before is not None and rows_before.shape == sent.total.shape
    others = rows_before if everybody and rows_before is not None else torch.zeros_like(sent.total)
    return single_owner_rows(sent.total, others, sent.owners, sent.weights)


@dataclass(frozen=True)
class Templates:
    """Vectors `[k, D]` in the audited network's embedding, and their client's classes, or -1."""

    rows: Tensor
    labels: Tensor


def read_templates(seen: Observation, limit: int) -> Templates:
    """The first `limit` templates that the observation holds.

    Raises:
        AttackError: None was shared.
    """
    rows: list[Tensor] = []
    labels: list[int] = []
    for payload in seen.shared:
        if isinstance(payload, ClassEmbeddings):
            vectors = payload.rows
        elif isinstance(payload, SummedRows):
            vectors = rows_of_sum(payload, seen.before)
        elif isinstance(payload, ClusterCenters):
            vectors = payload.centers
        else:
            continue
        rows += vectors
        of_class = not isinstance(payload, ClusterCenters)
        labels += range(len(vectors)) if of_class else [-1] * len(vectors)
    if not rows:
        raise AttackError(
            "no template to invert: the client shared no class embeddings and no cluster centers. "
            "Use an attack on updates, such as gan_inversion."
        )
    return Templates(torch.stack(rows[:limit]), torch.tensor(labels[:limit]))
