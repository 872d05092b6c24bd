"""Measures of an update that stand in its own header, taken while it was recorded.

So `fedaudit inspect` reads headers, where to read the tensors again would take as long as the disk
needs for them. Attacks read tensors, and `fedaudit audit`, which tells attacks what inspection
sees, has it measure them (`verify`). Measures are taken anew where there are none of this version,
and where facts or broadcast are not those that they were measured with; damaged ones, or those of
another message, are reported besides. A checksum over the whole header finds accidents and no lies,
for whoever can write into the folder can make up tensors, too. Damage to the tensors themselves is
seen by `fedaudit inspect --verify`, which reads them and compares.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import isclose, isfinite, isnan, prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from fedaudit.captures.format.capture_facts import Facts, first_problem
from fedaudit.captures.format.capture_paths import broadcast_file, round_folder
from fedaudit.captures.format.half_precision import Restored
from fedaudit.captures.format.identical_messages import content, content_of
from fedaudit.captures.format.message_header import KEY, Message, header_of
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.captures.format.readers.safetensors_file import TYPES
from fedaudit.captures.format.stored_message import StoredMessage, TensorsOnDisk, open_message
from fedaudit.captures.format.tensor_names import name_tensors
from fedaudit.captures.format.update_measures import Measures, measure
from fedaudit.core.errors import CaptureError

KEPT = "fedaudit_measures"
VERSION: Literal[2] = 2
"""Goes up whenever `measure` finds other numbers in the same tensors."""
LARGEST = 2 << 20
"""Characters of measures that are kept or read."""
CLOSE = 1e-4
"""Relative difference of sums that were made in another order."""
_DIGITS = r"^[0-9a-f]{64}$"
Digest = Annotated[str, Field(pattern=_DIGITS)]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Measures, and what they are of.

    Attributes:
        version: Of the measures.
        content: `identical_messages.content` of the update.
        broadcast: Digest of the header of the broadcast that they are the difference from; None
            where none was known.
        facts: Digest of the facts that decide what is a buffer and how tensors are named.
        measures: Of the update.
    """

    version: Literal[2]
    content: Digest
    broadcast: Digest | None
    facts: Digest
    measures: Measures

    def answers(self, broadcast: str | None, facts: Facts) -> bool:
        """Whether these are the measures against that broadcast (by its digest) and those facts."""
        return (self.broadcast, self.facts) == (broadcast, _digest_of(facts))


@cache
def _adapter() -> TypeAdapter[Kept]:
    return TypeAdapter(Kept)


Before = tuple[Mapping[str, Tensor] | None, str | None]
"""A broadcast under plain names, and the digest of its header; None where there is none."""


def broadcast_before(folder: Path, round: int, client: str, facts: Facts) -> Before:
    """What the server had sent to a client in a round; tensors are read when they are asked for."""
    path = broadcast_file(round_folder(folder, round), client)
    try:
        stored = open_message(path, "broadcast", round, Limits()) if path else None
    except CaptureError:  # inspection reports it, and has no broadcast either
        return None, None
    if stored is None:
        return None, None
    return TensorsOnDisk(stored, facts.parameter_names or ()), stored.header.digest


def keep(
    facts: Facts, message: Message, sent: Mapping[str, Tensor], before: Before
) -> dict[str, str]:
    """Measure an update that is being recorded.

    Args:
        facts: That are stated by now.
        message: Its header.
        sent: Contiguous tensors on the CPU.
        before: As `broadcast_before` has it.

    Returns:
        What is to stand in the header of its file beside the message: nothing where the update
        cannot be measured, which is no reason not to record it.
    """
    if any(tensor.dtype not in TYPES.values() for tensor in sent.values()):
        return {}
    tensors, names = Restored(sent, message.exponents), facts.parameter_names or ()

    def measured(broadcast: Mapping[str, Tensor] | None) -> Measures:
        return measure(tensors, message.kind, broadcast, facts.buffers, names, message.sign)

    try:
        measures = measured(before[0])
    except CaptureError:  # of the broadcast; as above
        measures, before = measured(None), (None, None)
    result = Kept(
        version=VERSION,
        content=content_of(sent),
        broadcast=before[1],
        facts=_digest_of(facts),
        measures=measures,
    )
    body = json.dumps(_adapter().dump_python(result, mode="json"), separators=(",", ":"))
    if len(body) > LARGEST:
        return {}
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()}
    return {KEPT: f"{_seal(body, header_of(message), layout)} {body}"}


def kept_in(stored: StoredMessage, facts: Facts) -> Kept | None:
    """The measures in a message's header; None where there are none of this version.

    Raises:
        CaptureError: They are damaged, or another message's.
    """
    text = stored.header.metadata.get(KEPT)
    if text is None:
        return None
    entries = stored.header.entries
    seal, _, body = text[: LARGEST + 100].partition(" ")
    layout = {name: (entry.dtype, entry.shape) for name, entry in entries.items()}
    if len(text) > LARGEST + 100 or seal != _seal(body, stored.header.metadata[KEY], layout):
        raise _unusable(stored, "they were damaged, or belong to another message")
    try:
        plain = json.loads(body)
        if not isinstance(plain, dict) or plain.get("version") != VERSION:
            return None
        result = _adapter().validate_python(plain)
    except ValidationError as error:
        raise _unusable(stored, first_problem(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unusable(stored, "they are no JSON") from error
    if result.facts == _digest_of(facts) and not _possible(result.measures, stored, facts):
        raise _unusable(stored, "no tensors of this message can have them")
    return result


def disagreement(stored: StoredMessage, kept: Kept, measured: Measures | None) -> str | None:
    """What of the kept measures is not so; those for another question come with None measured."""
    if content(stored) != kept.content:
        return "its tensors are not those that were recorded: it was damaged or changed since"
    if measured is not None and (name := _differing(kept.measures, measured)):
        return f"the measures in its header are not those of its tensors ({name}): they are made up"
    return None


def _differing(one: Measures, other: Measures) -> str | None:
    """The first measure on which two disagree by more than rounding explains."""
    for name, value in vars(one).items():
        again, near = getattr(other, name), CLOSE if name == "kurtosis" else 0.0
        if name == "layers":
            same = value.keys() == again.keys() and all(
                _close(tuple(vars(value[n]).values()), tuple(vars(again[n]).values()))
                for n in value
            )
        else:
            same = _close(value, again, near)
        if not same:
            return name
    return None


def _close(one: Any, other: Any, near: float = 0.0) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float):
        return isclose(one, other, rel_tol=CLOSE, abs_tol=near) or (isnan(one) and isnan(other))
    return bool(one == other)


def _possible(values: Measures, record: StoredMessage, facts: Facts) -> bool:
    """Whether tensors of this message can have such measures: what reads them relies on it."""
    entries = {name: record.header.entries[name] for name in record.names}
    sizes = {
        n: prod(e.shape) for n, e in name_tensors(entries, facts.parameter_names or ()).items()
    }
    of_whom = [*values.layers, *values.buffers, *values.negative_variances, *values.not_finite]
    return (
        sizes.keys() >= {*of_whom, *values.whole, *(name for name, _ in values.unfit)}
        and len(values.counters) <= len(values.buffers)
        and 0 <= values.distinct[0] <= values.distinct[1]
        and isfinite(values.kurtosis)
        and not values.norm < 0
        and not values.norm_of_all < values.norm
        and all(
            layer.size == sizes[name]
            and 0 <= layer.idle <= layer.zeros <= layer.size
            and not layer.norm < 0
            and (layer.zeros < layer.size or layer.norm == 0)
            for name, layer in values.layers.items()
        )
    )


def _unusable(record: StoredMessage, why: str) -> CaptureError:
    return CaptureError(
        record.path,
        f"the measures in its header cannot be used, and its tensors were read instead: {why}",
    )


def _digest_of(facts: Facts) -> str:
    decisive = json.dumps([facts.buffers, facts.parameter_names])
    return sha256(decisive.encode()).hexdigest()


def _seal(body: str, header: str, layout: Mapping[str, Any]) -> str:
    whole = json.dumps([body, header, sorted((n, str(t), list(s)) for n, (t, s) in layout.items())])
    return sha256(whole.encode()).hexdigest()
