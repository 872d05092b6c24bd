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

    Each class embedding is replaced by its opposite: a neighboring set of the claim. Where another
    number of centers is released then, the claim's "replace one" is told for certain: no ε holds
    for the whole of what is sent, however large the noise on each center.
    """
    rows = returned.kept.get("head.weight")
    for part in parts_of(defense):
        if not isinstance(part, DPLC) or rows is None:
            continue
        own = _sizes(part, rows)
        told = 0
        for number in range(len(rows)):
            neighbor = rows.clone()
            neighbor[number] = -rows[number]
            told += len(_sizes(part, neighbor)) != len(own)
        if told:
            yield (
                f"of {len(rows)} neighboring sets of class embeddings (one replaced by its "
                f"opposite) {told} release another number of centers than this client's "
                f"{len(own)}: which clusters are large enough is decided without noise, so that no "
                "ε holds for what is sent as a whole"
            )


def _sizes(part: DPLC, rows: Tensor) -> list[int]:
    return [len(members) for members in part.clusters(rows)]


def repeats(first: ClientReturn, second: ClientReturn) -> bool:
    """Whether two rounds of equal photos and weights, with draws of their own, sent the same.

    Then rounds do not hide each other: their noise cancels in differences, or there is none.
    """
    one, other = tensors_in(first.shared), tensors_in(second.shared)
    return len(one) == len(other) and all(map(torch.equal, one, other))
