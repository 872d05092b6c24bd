"""Averaging over rounds: what a client draws anew each time fades, what it has does not.

A client that trains on the same photos from a global model that hardly moves, sends the same
gradient again under noise of its own. n rounds divide the noise by √n; where each round prunes
other entries, n rounds fill in what is missing. Noisier rounds weigh less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.core.observation import Observation
from fedaudit.core.shared import Update

STILL = 1e-2
"""Relative change of the broadcast weights up to which a round counts as the same again."""

EVEN = 1.5
"""Ratio of the largest to the smallest difference of parameters up to which it counts as noise."""
LARGE = 256
"""Entries from which on a parameter tells."""
QUIET = 1e-3
"""Least noise of a round, in units of the noisiest."""
SWEEPS = 1000
"""Most iterations of the analysis of what rounds have in common."""
CLOSE = 1e-6
"""Relative change at which it ends."""
TINY = 1e-30
ALIKE = 1.05
"""Ratio of the noisiest to the cleanest round up to which all weigh alike."""
UNSHARED = 0.2
"""Relative error of the products of rounds up to which it is believed."""


def rounds_of(seen: Observation) -> tuple[Update, ...]:
    """The update, and those that its client made earlier of the same weights, newest first."""
    update = seen.update
    if update is None:
        return ()
    rounds = [update]
    for past in reversed(seen.earlier):
        earlier = past.update
        if earlier is None or earlier.kind != update.kind or past.training != seen.training:
            continue
        alike = earlier.tensors.keys() == update.tensors.keys()
        if alike and drift(past.before, seen.before) <= STILL:
            rounds.append(earlier)
    return tuple(rounds)


def drift(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Length of the way between two sets of weights, in units of the second's length."""
    if before.keys() != after.keys():
        return float("inf")
    names = [n for n, v in after.items() if v.is_floating_point()]
    way = sum(float((before[n] - after[n]).square().sum()) for n in names)
    length = sum(float(after[n].square().sum()) for n in names)
    return float((way / length) ** 0.5) if length else 0.0


def average(
    updates: Sequence[Update], *, sparse: bool = False, weights: Sequence[float] | None = None
) -> Update:
    """The mean of several rounds' updates, of one kind and with the same parameters.

    Args:
        updates: At least one.
        sparse: Zeros were not sent: each entry's mean is over the rounds that sent it.
        weights: A factor an update, from `weights_of`; the plain mean without.
    """
    first = updates[0]
    if len(updates) == 1:
        return first
    means = {}
    for name, value in first.tensors.items():
        rows = torch.stack([update.tensors[name] for update in updates])
        if weights is not None and not sparse:
            means[name] = torch.tensordot(torch.tensor(weights).to(value), rows.to(value), 1)
            continue
        counts = (rows != 0).sum(0).clamp_min(1) if sparse else len(updates)
        means[name] = rows.sum(0) / counts
    return replace(first, tensors=means)


def deviation(updates: Sequence[Update]) -> float | None:
    """Standard deviation of what rounds do not share, an entry of the newest; whatever its
    distribution.

    None of a single round, or where it is no noise: larger in some parameters than in others, as
    when photos are changed.
    """
    if len(updates) < 2:
        return None
    mean = average(updates)
    spread = []
    for name, value in mean.tensors.items():
        if value.numel() >= LARGE:
            one = sum(float((u.tensors[name] - value).square().sum()) for u in updates)
            spread.append((one / value.numel()) ** 0.5)
    if spread and max(spread) > EVEN * min(spread):
        return None
    return float(signal_and_noise(updates)[1][0])


def weights_of(updates: Sequence[Update]) -> tuple[tuple[float, ...], float]:
    """Weights of rounds under which what is left of the noise is least, and what is left of it.

    What is common to the rounds keeps the length that it has in the newest, of whose noise the rest
    is given in units.
    """
    signal, noise = signal_and_noise(updates)
    noisiest = float(noise.max())
    if len(updates) < 2 or not noisiest:
        return (1 / len(updates),) * len(updates), 1.0
    if not bool(signal.any()):
        signal = torch.ones_like(signal)
    if max(_ratio(signal), _ratio(noise)) < ALIKE:
        return (1 / len(updates),) * len(updates), len(updates) ** -0.5
    noise = noise.clamp_min(QUIET * noisiest)
    weights = signal / noise.square()
    weights = weights * signal[0] / (weights * signal).sum()
    left = (weights * noise).square().sum().sqrt() / noise[0]
    return tuple(weights.tolist()), float(left)


def signal_and_noise(updates: Sequence[Update]) -> tuple[Tensor, Tensor]:
    """Length of what rounds have in common, in each of them, and each one's noise an entry, `[R]`.

    Products of two rounds have no noise on average: they are a_i·a_j of the lengths a, from which
    what is on the diagonal follows, and what is too much there (one-factor analysis by weighted
    least squares). Two rounds, and such as hardly have anything in common, count as equally long.
    """
    count = sum(v.numel() for v in updates[0].tensors.values())
    gram = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for name in updates[0].tensors:
        rows = torch.stack([u.tensors[name].flatten() for u in updates]).double()
        gram += (rows @ rows.T).cpu()
    other = ~torch.eye(len(gram), dtype=torch.bool)
    common = gram[other].mean().clamp_min(0) if len(gram) > 1 else gram.new_zeros(())
    signal = common.sqrt().expand(len(gram))
    if len(gram) > 2 and float(common):
        # A product is as uncertain as its rounds are noisy.
        weights, lengths = other / gram.diagonal().clamp_min(TINY), signal.clone()
        for _ in range(SWEEPS):
            last = lengths.clone()
            for i, row in enumerate(gram * weights):  # each is what fits best beside the others
                lengths[i] = (row @ lengths) / (weights[i] @ lengths.square() + TINY)
            if float((lengths - last).abs().max()) < CLOSE * float(lengths.abs().max()):
                break
        off = (gram - lengths[:, None] * lengths)[other].square().mean().sqrt()
        if float(off) < UNSHARED * float(common) and bool((lengths > 0).all()):
            signal = lengths
    noise = ((gram.diagonal() - signal.square()).clamp_min(0) / count).sqrt()
    return signal, noise


def _ratio(values: Tensor) -> float:
    return float(values.max() / values.min())
