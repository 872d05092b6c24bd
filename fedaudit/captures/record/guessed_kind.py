"""What kind of update a file holds, and with which sign, where nobody says.

It is what the numbers show. Weights lie near the broadcast. Of the rest, the head's bias tells
uphill from downhill: for cross-entropy its gradient is p − y (softmax less the one-hot label),
averaged over the batch, so it sums to zero, is strongly negative at the classes of the batch and
slightly positive at all others. Uphill is a gradient, downhill a delta. How far a delta lies from a
negated gradient is the learning rate, which the numbers do not tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedaudit.captures.format.capture_facts import Kind
from fedaudit.captures.format.contradictions import NEAR, against, like_weights, near_text
from fedaudit.captures.format.tensor_names import COUNTER, is_buffer


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
    cosine, ratio = against(sent, broadcast)
    near = near_text(cosine, ratio)
    if kind is not None and (wrong := like_weights(kind, cosine, ratio)):
        return Guess(kind, None, (wrong,))
    if cosine > NEAR:
        return Guess("weights", 1, (f"weights: {near}",))
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


def _uphill(update: Mapping[str, Tensor]) -> tuple[bool | None, str]:
    """Whether the head's bias points uphill; None where that cannot be said."""
    unknown = "no bias of a head tells uphill from downhill"
    name = next(
        (
            n
            for n, t in reversed(list(update.items()))
            if t.dim() == 1 and n.endswith("bias") and update.get(f"{n[:-4]}weight", t).dim() == 2
        ),
        None,
    )
    if name is None or len(update[name]) < 3:
        return None, unknown
    bias = update[name].double()
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
