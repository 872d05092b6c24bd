"""Make a capture of files: what the server sent, and what clients sent back.

What kind of update a file holds, where nobody says, is what the numbers show. Weights lie near the
broadcast. Of the rest, the head's bias tells uphill from downhill: for cross-entropy its gradient
is p − y (softmax less the one-hot label), averaged over the batch, so it sums to zero, is strongly
negative at the classes of the batch and slightly positive at all others. Uphill is a gradient,
downhill a delta. How far a delta lies from a negated gradient is the learning rate, which the
numbers do not tell.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fedaudit.captures.format.capture_facts import Facts, Kind, as_dict, merge
from fedaudit.captures.format.capture_network import model_of, names_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.contradictions import (
    NEAR,
    against,
    counted_back,
    like_weights,
    near_text,
)
from fedaudit.captures.format.message_tensors import check_finite, check_fits
from fedaudit.captures.format.readers.formats import bind, read_tensors
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.format.readers.npz_file import is_numbered
from fedaudit.captures.format.tensor_names import COUNTER, is_buffer, plain_names
from fedaudit.captures.format.update_measures import steps_counted
from fedaudit.captures.record.recording import MANIFEST, Recording
from fedaudit.core import registry
from fedaudit.core.errors import CaptureError, UsageError

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is stated of the files of one round.

    Attributes:
        round: Number of the round.
        kind: None is to be found out.
        sign: None is to be found out.
        examples: Images of each client.
        aggregate: The files are sums or means over clients.
        partial: What is missing stayed on the devices.
    """

    round: int = 1
    kind: Kind | None = None
    sign: Literal[1, -1] | None = None
    examples: int | None = None
    aggregate: bool = False
    partial: bool = False


def names_of_model(facts: Facts, *, trusted: str | None = None) -> tuple[str, ...]:
    """All names of the model's state dict, in its order; () where they are not known.

    `trusted` is the model that the user names now, whose code may run. That of a network of
    ours may in any case, another that only the capture names may not.
    """
    if facts.parameter_names:
        return facts.parameter_names
    return names_of(model_of(facts, facts.model), facts) if may_build(facts, trusted) else ()


def may_build(facts: Facts, trusted: str | None) -> bool:
    """Whether the model is known and may run its code; `trusted` as in `names_of_model`."""
    return facts.model is not None and (
        facts.model == trusted or facts.model in registry.names("networks")
    )


def facts_with(folder: Path, given: Facts) -> tuple[Facts, frozenset[str]]:
    """What a capture, if there is one, and its user state together, and the facts that are new.

    Nothing is new where the two contradict each other, which `recording` refuses.
    """
    held = StoredCapture(folder).facts if (folder / MANIFEST).exists() else Facts()
    known, clashes = merge(held, given)
    if clashes:
        return known, frozenset()
    return known, frozenset(as_dict(given).keys() - as_dict(held).keys())


def read_broadcast(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """What the server sent, by name.

    Raises:
        CaptureError: The file cannot be used.
    """
    tensors = read_tensors(path)
    if is_numbered(tensors):
        tensors = bind(path, list(tensors.values()), names)
    for name, tensor in tensors.items():
        check_finite(path, name, tensor)
    return tensors


def import_update(
    path: Path, client: str, record: Recording, names: Sequence[str], given: Given, tell: Tell
) -> None:
    """Record what one client sent.

    Args:
        path: Its file.
        client: Its name.
        record: The capture, which holds the broadcast of the round.
        names: As `names_of_model` gives them; () where the model is not known.
        given: What is stated.
        tell: Takes what was found out, with its evidence, a sentence at a time.

    Raises:
        CaptureError: The file cannot be used, or does not fit the broadcast.
        UsageError: Its kind or sign is not stated and cannot be found out.
    """
    message = StoredCapture(record.folder).broadcast_message(given.round)
    broadcast = message.tensors()
    size = sum(t.numel() * 8 for t in broadcast.values())
    limits = Limits(
        total_bytes=2 * size + (1 << 20),
        file_bytes=2 * size + (64 << 20),
        why=f", which follows from the {size // 8:,} numbers of the broadcast. Is this the update "
        "of another network?",
    )
    update = plain_names(_name(path, tuple(names) or tuple(broadcast), limits))
    plain = plain_names(broadcast)
    check_fits(path, update, plain)
    missing = [n for n in plain if n not in update and not is_buffer(n)]
    if missing and not given.partial:
        raise CaptureError(
            path,
            "it is missing, and the server had sent it. If it stayed on the device, say --partial",
            key=missing[0],
        )
    kind, sign = _settle(path, update, plain, given, tell)
    counters = [
        steps_counted(tensor, plain.get(name), 0 if kind == "weights" else sign)
        for name, tensor in update.items()
        if f".{name}".endswith(COUNTER) and tensor.numel() == 1
    ]
    if wrong := counted_back(counters):
        tell(f"{path}: {wrong}")
    # Under the names of the broadcast, which may carry a wrapper's prefix.
    own = dict(zip(plain, broadcast, strict=True))
    record.update(
        given.round,
        client,
        {own[name]: tensor for name, tensor in update.items()},
        kind=kind,
        sign=sign,
        examples=given.examples,
        aggregate=given.aggregate,
    )


def _name(path: Path, names: tuple[str, ...], limits: Limits) -> dict[str, Tensor]:
    """Tensors by name; a list as long as the parameters alone lacks the buffers."""
    tensors = read_tensors(path, limits=limits)
    if not is_numbered(tensors):
        return tensors
    parameters = [name for name in names if not is_buffer(name)]
    fitting = parameters if len(tensors) == len(parameters) else names
    return bind(path, list(tensors.values()), fitting)


def _settle(
    path: Path,
    update: Mapping[str, Tensor],
    broadcast: Mapping[str, Tensor],
    statement: Given,
    tell: Tell,
) -> tuple[Kind, Literal[1, -1]]:
    """Kind and sign as stated, or as the numbers show them."""
    estimate = guess(update, broadcast, statement.kind)
    kind, sign = statement.kind or estimate.kind, statement.sign or estimate.sign
    for sentence in estimate.evidence:
        tell(f"{path}: {sentence}")
    if kind is None:
        raise UsageError(
            f"{path}: whether it is a delta or a gradient does not show in its numbers. Say --kind "
            "delta or --kind gradient."
        )
    if sign is None:
        tell(f"{path}: its sign does not show in its numbers, and is taken as +1; --sign -1 else")
    elif statement.sign is None and sign < 0:
        tell(f"{path}: it is the negative of a {kind}, and is taken so (sign -1)")
    elif estimate.sign is not None and sign != estimate.sign:
        tell(f"{path}: stated with sign {sign:+d}, but the numbers look like {estimate.sign:+d}")
    return kind, sign or 1


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
