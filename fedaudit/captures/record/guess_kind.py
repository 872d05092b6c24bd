"""What kind of update a file holds, where nobody says: only what the numbers show, with evidence.

Weights lie near the broadcast. Of the rest, the head's bias tells uphill from downhill: for
cross-entropy its gradient is p − y (softmax less the one-hot label), averaged over the batch, so it
sums to zero, is strongly negative at the classes of the batch and slightly positive at all others.
Uphill is a gradient, downhill a delta. How far a delta lies from a negated gradient is the learning
rate, which the numbers do not tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedaudit.captures.format.capture_facts import Kind
from fedaudit.captures.format.tensor_names import COUNTER, is_buffer

NEAR = 0.9
"""Cosine to the broadcast above which tensors are weights; those of an update are near 0."""


@dataclass(frozen=True)
class Guess:
    """A kind and sign; None where the numbers do not tell. `evidence` has a sentence for each."""

    kind: Kind | None
    sign: Literal[1, -1] | None
    evidence: tuple[str, ...]


def guess(
    sent: Mapping[str, Tensor], broadcast: Mapping[str, Tensor], kind: Kind | None = None
) -> Guess:
    """What an update is.

    Args:
        sent: Its tensors.
        broadcast: What the server sent, by the same names.
        kind: What it is, if that is stated; only the sign is looked for then.
    """
    cosine, ratio = _against(sent, broadcast)
    near = f"cosine to the broadcast {cosine:.4f}, difference {ratio:.2g} of its norm"
    if cosine > NEAR:
        if kind in {None, "weights"}:
            return Guess("weights", 1, (f"weights: {near}",))
        return Guess(kind, None, (f"stated as {kind}, but it looks like weights: {near}",))
    if kind == "weights":
        return Guess(kind, 1, (f"stated as weights, but it does not look like them: {near}",))
    uphill, evidence = _uphill(sent)
    notes = [f"no weights: {near}"]
    counters = [n for n in sent if f".{n}".endswith(COUNTER)]
    if kind is None and any(is_buffer(n) for n in sent):
        kind = "delta"
        name = counters[0] if counters else next(n for n in sent if is_buffer(n))
        notes.append(f"a delta: {name!r} is a buffer, and buffers have no gradient")
    notes.append(evidence)
    if uphill is None:
        return Guess(kind, None, tuple(notes))
    if kind is None:
        kind = "gradient" if uphill else "delta"
        other = "global − local (--kind delta --sign -1)" if uphill else "a negated gradient"
        notes.append(f"taken as a {kind}; {other} differs from it only by the learning rate")
        return Guess(kind, 1, tuple(notes))
    return Guess(kind, 1 if uphill == (kind == "gradient") else -1, tuple(notes))


def _against(sent: Mapping[str, Tensor], broadcast: Mapping[str, Tensor]) -> tuple[float, float]:
    """Cosine to the broadcast, and the norm of the difference over the broadcast's norm."""
    dot = ours = theirs = apart = 0.0
    for name, tensor in sent.items():
        if is_buffer(name) or not tensor.is_floating_point():
            continue
        a, b = tensor.double().flatten(), broadcast[name].double().flatten()
        dot += float(a @ b)
        ours += float(a @ a)
        theirs += float(b @ b)
        apart += float((a - b) @ (a - b))
    scale = (ours * theirs) ** 0.5
    return (dot / scale if scale else 0.0), (apart / theirs) ** 0.5 if theirs else float("inf")


def _uphill(sent: Mapping[str, Tensor]) -> tuple[bool | None, str]:
    """Whether the head's bias points uphill; None where that cannot be said."""
    unknown = "no bias of a head tells uphill from downhill"
    name = next(
        (
            n
            for n, t in reversed(list(sent.items()))
            if t.dim() == 1 and n.endswith("bias") and sent.get(f"{n[:-4]}weight", t).dim() == 2
        ),
        None,
    )
    if name is None or len(sent[name]) < 3:
        return None, unknown
    bias = sent[name].double()
    size = float(bias.abs().sum())
    if size == 0 or abs(float(bias.sum())) > 1e-2 * size:
        return None, f"{unknown}: {name!r} does not sum to 0"
    below, above = int((bias < 0).sum()), int((bias > 0).sum())
    skew = float(bias.pow(3).mean() / bias.pow(2).mean() ** 1.5)
    if torch.isnan(torch.tensor(skew)) or abs(skew) < 0.5:
        return None, f"{unknown}: {name!r} has {below} entries below 0 and {above} above it"
    way = "uphill" if skew < 0 else "downhill"
    many = f"{below} of {len(bias)} entries of {name!r} are below 0 (skewness {skew:.2f}, sum 0)"
    return skew < 0, f"{way}: {many}"
