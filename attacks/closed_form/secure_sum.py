"""What secure aggregation does not hide: rows that one client alone owns."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.core.errors import AttackError
from fedaudit.core.shared import SummedRows

HEAD_ROWS = "head.weight"


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
    known = before.get(HEAD_ROWS)
    everybody = known is not None and known.shape == sent.total.shape
    others = known if everybody and known is not None else torch.zeros_like(sent.total)
    return single_owner_rows(sent.total, others, sent.owners, sent.weights)
