"""Make a capture of files: what the server sent, and what clients sent back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from fedaudit.captures.format.capture_facts import Facts, Kind, as_dict, merge
from fedaudit.captures.format.capture_network import model_of, names_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.contradictions import counted_back
from fedaudit.captures.format.message_tensors import check_finite, check_fits
from fedaudit.captures.format.readers.formats import bind, read_tensors
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.format.readers.npz_file import is_numbered
from fedaudit.captures.format.tensor_names import COUNTER, is_buffer, plain_names
from fedaudit.captures.format.update_measures import steps_counted
from fedaudit.captures.record.guessed_kind import guess
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
