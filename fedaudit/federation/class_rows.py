"""Class embeddings that clients own and the server holds: FedFace's and FedGC's bookkeeping."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.core.shared import Aggregate, ClassEmbeddings, Returns, Shared, SummedRows
from fedaudit.defenses.weighted_sum import mean_of, sum_securely

ROWS = "head.weight"
HEAD = "head."


def own_rows(
    server: Mapping[str, Tensor], client: int, owned: tuple[int, ...]
) -> dict[str, Tensor]:
    """What one client receives: everything, but of the class embeddings only its own."""
    tensors = dict(server)
    if ROWS in tensors:
        tensors[ROWS] = tensors[ROWS][list(owned)]
    return tensors


def collect(server: Mapping[str, Tensor], returns: Returns) -> tuple[Tensor, Tensor] | None:
    """All class embeddings after a round, and who sent them; rows that nobody sends stay.

    Returns:
        `[P, D]` rows by number, and `[P]` the client that sent each, -1 where none did. None where
        nobody sent any, or where rows are still missing.
    """
    if not (uploads := _embeddings(returns)):
        return None
    before = server.get(ROWS)
    count = len(before) if before is not None else 1 + max(max(s.owners) for _, s in uploads)
    rows = uploads[0][1].rows.new_zeros(count, uploads[0][1].rows.shape[1])
    if before is not None:
        rows.copy_(before)
    owner = torch.full((count,), -1)
    for client, embeddings in uploads:
        rows[list(embeddings.owners)] = embeddings.rows
        owner[list(embeddings.owners)] = client
    return None if before is None and bool((owner < 0).any()) else (rows, owner)


def sum_with_rows(returns: Returns) -> tuple[Shared, ...]:
    """What a secure aggregator outputs of backbones *and* class embeddings.

    Every client puts its rows into a matrix of everybody's; those of others, which the server never
    sends it, stay zero. The weights are those of the updates: each client's number of images.
    """
    sums = sum_securely(returns)
    weights = next((s.weights for s in sums), (1.0,) * len(returns))
    if not (uploads := _embeddings(returns)):
        return sums
    count = 1 + max(max(s.owners) for _, s in uploads)
    total = uploads[0][1].rows.new_zeros(count, uploads[0][1].rows.shape[1])
    owners = [-1] * count
    for client, embeddings in uploads:
        total[list(embeddings.owners)] += weights[client] * embeddings.rows
        for row in embeddings.owners:
            owners[row] = client
    return (*sums, SummedRows(total, tuple(owners), weights))


def _embeddings(returns: Returns) -> list[tuple[int, ClassEmbeddings]]:
    """Number of each client that sent class embeddings, and these."""
    clients = enumerate(returns)
    return [(client, s) for client, r in clients for s in r if isinstance(s, ClassEmbeddings)]


def taken_apart(seen: Sequence[Shared]) -> list[tuple[Shared, ...]]:
    """What the server makes of secure sums: the mean update, and each client's own rows.

    It needs the rows one by one, to spread or correct them and to send each back to its owner. That
    it *can* have them, though it sees sums alone, is what the sum does not hide.
    """
    means = tuple(mean_of(s) for s in seen if isinstance(s, Aggregate))
    rows = next((s for s in seen if isinstance(s, SummedRows)), None)
    if rows is None:
        return [means]
    apart: list[tuple[Shared, ...]] = []
    for client, weight in enumerate(rows.weights):
        mine = tuple(k for k, owner in enumerate(rows.owners) if owner == client)
        own = (ClassEmbeddings(rows.total[list(mine)] / weight, mine),) if mine else ()
        apart.append((*(means if client == 0 else ()), *own))
    return apart
