"""p-values by drawing at random, with more draws only where the first ones leave them small.

A test among many rows needs a p-value that stays small after the correction for all of them, and
most rows need no such p-value. So draws come in chunks, and end as soon as enough of them are as
extreme as what was seen (Besag & Clifford 1991, "Sequential Monte Carlo p-values", with looks after
whole chunks). A p-value stays exact so: those that end early are above whatever a later end could
give, and those that go on were as small at every earlier end.
"""

import math
from collections.abc import Callable

DRAWN = 19_999
"""In a chunk, beside the true one, so that one chunk gives no p-value below 1 / 20,000."""
ENOUGH = 10
"""Draws as extreme as what was seen, after which no more are needed: p is 1 / 2,000 or more."""
MOST = 100
"""Chunks, whatever is asked: some seconds a row."""


def chunks_for(smallest: float) -> int:
    """How many chunks give p-values down to `smallest`, within `MOST`.

    >>> chunks_for(5e-5), chunks_for(4.9e-5), chunks_for(1e-9)
    (1, 2, 100)
    """
    return min(MOST, math.ceil((1 / smallest - 1) / DRAWN - 1e-9))


def drawn_p_value(hits_in: Callable[[int], int], chunks: int, drawn: int) -> float:
    """Share of draws that are at least as extreme, the true one among them.

    Args:
        hits_in: Of the number of a chunk: how many of its draws are at least as extreme.
        chunks: How many there are at most.
        drawn: Draws in each.
    """
    hits = total = 0
    for chunk in range(chunks):
        hits, total = hits + hits_in(chunk), total + drawn
        if hits >= ENOUGH:
            break
    return (hits + 1) / (total + 1)
