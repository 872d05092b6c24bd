"""Class embeddings that clients own and the server holds: FedFace's and FedGC's bookkeeping."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedaudit.types import ClassEmbeddings, Shared

ROWS = "head.weight"
HEAD = "head."


def own_rows(server: Mapping[str, Tensor], owned: tuple[int, ...]) -> dict[str, Tensor]:
    """What one client receives: everything, but of the class embeddings only its own."""
    received = dict(server)
    if ROWS in received:
        received[ROWS] = received[ROWS][list(owned)]
    return received


def collect(
    server: Mapping[str, Tensor], returns: Sequence[tuple[Shared, ...]]
) -> tuple[Tensor, Tensor] | None:
    """All class embeddings after a round, and who sent them.

    Args:
        server: What the server held; rows that nobody sends stay as they were.
        returns: What each client sent.

    Returns:
        `[P, D]` rows by number, and `[P]` the client that sent each, -1 where none did. None where
        nobody sent any, or where rows are still missing.
    """
    sent = [
        (client, s) for client, r in enumerate(returns) for s in r if isinstance(s, ClassEmbeddings)
    ]
    if not sent:
        return None
    known = server.get(ROWS)
    count = len(known) if known is not None else 1 + max(max(s.owners) for _, s in sent)
    rows = sent[0][1].rows.new_zeros(count, sent[0][1].rows.shape[1])
    if known is not None:
        rows.copy_(known)
    owner = torch.full((count,), -1)
    for client, embeddings in sent:
        rows[list(embeddings.owners)] = embeddings.rows
        owner[list(embeddings.owners)] = client
    return None if known is None and bool((owner < 0).any()) else (rows, owner)
