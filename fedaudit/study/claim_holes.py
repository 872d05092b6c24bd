"""Holes in a claim that its mechanism shows: selection without noise, noise that repeats."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn
from fedaudit.core.protocols import Defense
from fedaudit.core.shared import tensors_in
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.dplc import DPLC


def selection_holes(defense: Defense, returned: ClientReturn) -> Iterator[str]:
    """What DPLC's choice of clusters, which has no noise, tells of single class embeddings.

    A set of class embeddings and a neighbor of it ("replace one") that the released clusters tell
    apart for certain: T that agree are one center, and with one of them turned around there is
    none. So no ε holds for what is sent as a whole, however large the noise on each center. Beside
    it stands how many neighbors of the client's own class embeddings are told apart so.
    """
    rows = returned.kept.get("head.weight")
    for part in parts_of(defense):
        if not isinstance(part, DPLC):
            continue
        alike = torch.eye(2)[:1].repeat(part.min_size, 1)
        if not _count(part, alike):
            continue
        own = "" if rows is None else f", and so are {_count(part, rows)} of this client's own"
        yield (
            f"{part.min_size} class embeddings that agree are released as a center, and with one "
            f"of them replaced none is: {_count(part, alike)} of their {len(alike)} neighbors are "
            f"told by the number of centers alone{own}. It is decided without noise, so that no ε "
            "holds for what is sent as a whole"
        )


def _count(part: DPLC, rows: Tensor) -> int:
    """Number of rows whose sign flip changes how many clusters are released."""
    count, flips = len(part.clusters(rows)), 0
    for number in range(len(rows)):
        neighbor = rows.clone()
        neighbor[number] = -rows[number]
        flips += len(part.clusters(neighbor)) != count
    return flips


def repeats(first: ClientReturn, second: ClientReturn) -> bool:
    """Whether two rounds of equal photos and weights, with draws of their own, sent the same.

    Then rounds do not hide each other: their noise cancels in differences, or there is none.
    """
    one, other = tensors_in(first.shared), tensors_in(second.shared)
    return len(one) == len(other) and all(map(torch.equal, one, other))
