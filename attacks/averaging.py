"""Averaging over rounds: what a client draws anew each time fades, what it has does not.

A client that trains on the same photos for several rounds, from a global model that hardly moves,
sends the same gradient again under noise of its own. n rounds divide the noise by √n; where each
round prunes other entries, n rounds fill the gaps. A server has all rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.types import Observation, Update

STILL = 1e-2
"""Relative change of the broadcast weights up to which a round counts as the same again."""

EVEN = 1.5
"""Ratio of the loudest to the quietest parameter up to which what differs counts as noise."""
LARGE = 256
"""Entries from which on a parameter tells."""


def rounds_of(seen: Observation) -> tuple[Update, ...]:
    """The update, and those that its client made earlier of the same weights, newest first.

    Only rounds with the same kind of update and the same parameters are any use.
    """
    update = seen.update
    if update is None:
        return ()
    found = [update]
    for past in reversed(seen.earlier):
        sent = past.update
        if sent is None or sent.kind != update.kind or past.training != seen.training:
            continue
        alike = sent.tensors.keys() == update.tensors.keys()
        if alike and moved(past.before, seen.before) <= STILL:
            found.append(sent)
    return tuple(found)


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Length of the way between two sets of weights, in units of the second's length."""
    if before.keys() != after.keys():
        return float("inf")
    names = [n for n, v in after.items() if v.is_floating_point()]
    way = sum(float((before[n] - after[n]).square().sum()) for n in names)
    length = sum(float(after[n].square().sum()) for n in names)
    return float((way / length) ** 0.5) if length else 0.0


def average(updates: Sequence[Update], *, sparse: bool = False) -> Update:
    """The mean of several rounds' updates.

    Args:
        updates: At least one; of one kind, with the same parameters.
        sparse: Zeros stand for entries that were not sent: each entry's mean is over the rounds
            that sent it.
    """
    first = updates[0]
    if len(updates) == 1:
        return first
    means = {}
    for name in first.tensors:
        rows = torch.stack([update.tensors[name] for update in updates])
        told = (rows != 0).sum(0).clamp_min(1) if sparse else len(updates)
        means[name] = rows.sum(0) / told
    return replace(first, tensors=means)


def deviation(updates: Sequence[Update]) -> float | None:
    """Standard deviation of what rounds do not share, an entry of one round.

    Whatever its distribution; 0 where rounds repeat each other. None of a single round, or where
    it is no noise: louder in some parameters than in others, as when photos are changed.
    """
    if len(updates) < 2:
        return None
    mean = average(updates)
    rest, count, spread = 0.0, 0, []
    for name, value in mean.tensors.items():
        one = sum(float((u.tensors[name] - value).square().sum()) for u in updates)
        rest, count = rest + one, count + value.numel()
        if value.numel() >= LARGE:
            spread.append((one / value.numel()) ** 0.5)
    if spread and max(spread) > EVEN * min(spread):
        return None
    return float((rest / (count * (len(updates) - 1))) ** 0.5)
