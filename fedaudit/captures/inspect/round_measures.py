"""Look at the messages of a round: at the measures in their headers, or at their tensors."""

import math
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from fedaudit.captures.format.capture_facts import Facts
from fedaudit.captures.format.capture_paths import broadcast_file
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.contradictions import (
    FEW,
    against,
    are_even,
    counted_back,
    like_adaptive_steps,
    like_weights,
)
from fedaudit.captures.format.identical_messages import identical_groups
from fedaudit.captures.format.kept_measures import Kept, disagreement, kept_in
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.captures.format.tensor_names import name_tensors
from fedaudit.captures.format.update_measures import Measures, measure
from fedaudit.core.errors import CaptureError, UsageError

ALIKE = 3.0
"""Ratio of norms within which a change is compared with the weights that the server sent."""


@dataclass(frozen=True)
class Anomaly:
    """Something unusual; `client` is "" where it is about the whole round."""

    round: int | None
    client: str
    what: str


@dataclass(frozen=True)
class Look:
    """What one message, or a group of bit-identical ones, is like.

    Attributes:
        messages: It, and those of other clients that are bit-identical.
        measures: None where it cannot be read.
        kept: Whether these were taken when it was recorded.
        anomalies: Of it.
    """

    messages: tuple[StoredMessage, ...]
    measures: Measures | None
    kept: bool
    anomalies: tuple[Anomaly, ...]

    @property
    def clients(self) -> tuple[str, ...]:
        """Who sent these bit-identical messages."""
        return tuple(sorted({one.message.client or "" for one in self.messages}))

    @property
    def is_sum(self) -> bool:
        """Whether the update is a sum over several clients."""
        return self.messages[0].message.aggregate or len(self.clients) > 1


@dataclass(frozen=True)
class RoundLook:
    """What the messages of a round are like.

    Attributes:
        stored: The messages that can be read.
        broadcast: What the server sent, under plain names; None where it is not known.
        looks: One for all messages that are bit-identical.
        anomalies: Of the round and of single messages.
    """

    stored: tuple[StoredMessage, ...]
    broadcast: Mapping[str, Tensor] | None
    looks: tuple[Look, ...]
    anomalies: tuple[Anomaly, ...]


def look_at_round(capture: StoredCapture, number: int, *, workers: int, verify: bool) -> RoundLook:
    """Measure all messages of a round; what cannot be used becomes a problem of the capture."""
    records = tuple(capture.messages(number))
    broadcast, anomalies = _common_broadcast(capture, number)
    reusable = _read_measures(capture, records)
    digests = {} if verify else {path: measures.content for path, measures in reusable.items()}
    groups = identical_groups(records, digests)
    read = [one for group in groups for one in (group if verify else group[:1])]
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(partial(_examine, capture, broadcast, reusable, verify), read))
    by_path = {one.path: result for one, result in zip(read, results, strict=True)}
    for *_, error in results:
        if error:
            capture.report(error)
    looks = tuple(
        _look(capture, group, *by_path[group[0].path][:2], broadcast[0]) for group in groups
    )
    return RoundLook(
        records, broadcast[0], looks, (*anomalies, *(a for look in looks for a in look.anomalies))
    )


_Sent = tuple[Mapping[str, Tensor] | None, str | None]
"""A broadcast under plain names, and the digest of its header; None where there is none."""


def _common_broadcast(capture: StoredCapture, number: int) -> tuple[_Sent, tuple[Anomaly, ...]]:
    """What the server sent to everybody."""
    try:
        return _broadcast(capture, number, None), ()
    except CaptureError as error:
        capture.report(error)
    except UsageError:
        what = "no broadcast was recorded: updates mean nothing alone"
        return (None, None), (Anomaly(number, "", what),)
    return (None, None), ()


def _broadcast(capture: StoredCapture, number: int, client: str | None) -> _Sent:
    record = capture.broadcast_message(number, client)
    names = capture.facts.parameter_names or ()
    return name_tensors(record.tensors(), names), record.header.digest


def _read_measures(capture: StoredCapture, records: tuple[StoredMessage, ...]) -> dict[Path, Kept]:
    """Measures in headers, by path."""
    by_path: dict[Path, Kept] = {}
    for one in records:
        try:
            if measures := kept_in(one, capture.facts):
                by_path[one.path] = measures
        except CaptureError as error:
            capture.report(error)
    return by_path


def _examine(
    capture: StoredCapture,
    broadcast: _Sent,
    reusable: Mapping[Path, Kept],
    verify: bool,
    record: StoredMessage,
) -> tuple[Measures | None, bool, CaptureError | None]:
    """The measures of a message, whether they were kept, and what is wrong with it.

    Runs in a thread, so that it changes nothing.
    """
    facts, client = capture.facts, record.message.client or ""
    before = reusable.get(record.path)
    try:
        if broadcast_file(record.path.parent, client) != broadcast_file(record.path.parent, None):
            broadcast = _broadcast(capture, record.message.round, client)
        answers = before is not None and before.answers(broadcast[1], facts)
        if before is not None and answers and not verify:
            return before.measures, True, None
        names = facts.parameter_names or ()
        measures = measure(
            record.tensors(),
            record.message.kind,
            broadcast[0],
            facts.buffers,
            names,
            record.message.sign,
        )
        if verify and before is not None:
            wrong = disagreement(record, before, measures if answers else None)
            if wrong is not None:
                return measures, False, CaptureError(record.path, wrong)
    except CaptureError as error:
        return None, False, error
    return measures, False, None


def _look(
    capture: StoredCapture,
    group: tuple[StoredMessage, ...],
    measures: Measures | None,
    from_header: bool,
    broadcast: Mapping[str, Tensor] | None,
) -> Look:
    """What is unusual about a message by itself."""
    number, client = group[0].message.round, group[0].message.client or ""
    if measures is None:
        return Look(group, None, False, ())
    words = [f"{name!r}: {reason}" for name, reason in measures.unfit[:3]]
    words += [f"{name!r} holds NaN or infinity" for name in measures.not_finite[:3]]
    words += [f"the running variance {n!r} is negative" for n in measures.negative_variances[:3]]
    if measures.layers and measures.norm == 0:
        words.append("it changes nothing: the client did not train")
    words.append(counted_back(measures.counters))
    words.append(_like_weights(capture, group[0], measures, broadcast))
    words.append(unlike_sgd(capture.facts, group[0], measures))
    anomalies = tuple(Anomaly(number, client, text) for text in words if text)
    return Look(group, measures, from_header, anomalies)


def unlike_sgd(facts: Facts, record: StoredMessage, measures: Measures) -> str:
    """That a change was not made by SGD, though nothing else is stated; "" where it may be.

    Values that are of a few sizes alone were compressed: they say nothing of steps.
    """
    distinct, among = measures.distinct
    if record.message.kind == "gradient" or (facts.optimizer or "sgd").lower() != "sgd":
        return ""
    sizes = [layer.rms for layer in measures.layers.values() if layer.size >= FEW and layer.norm]
    if 2 * distinct < among or not are_even(3 + measures.kurtosis, sizes):
        return ""
    return like_adaptive_steps(facts.optimizer)


def optimizer_doubt(capture: StoredCapture, number: int, clients: Collection[str]) -> str:
    """The same of what these clients sent in a round, by the measures that stand in the headers."""
    for record in capture.messages(number):
        kept = kept_in(record, capture.facts) if record.message.client in clients else None
        if kept and (doubt := unlike_sgd(capture.facts, record, kept.measures)):
            return doubt
    return ""


def _like_weights(
    capture: StoredCapture,
    record: StoredMessage,
    measures: Measures,
    broadcast: Mapping[str, Tensor] | None,
) -> str:
    """That a message that is stated as a change holds weights; "" where it does not.

    Only one that is about as large as the weights is read for it.
    """
    kind = record.message.kind
    if broadcast is None or kind in {None, "weights"} or measures.norm == 0:
        return ""
    known = [t for n, t in broadcast.items() if n in measures.layers and t.is_floating_point()]
    size = math.sqrt(sum(float(t.double().norm()) ** 2 for t in known))
    if not size / ALIKE < measures.norm < size * ALIKE:
        return ""
    try:
        sent = name_tensors(record.tensors(), capture.facts.parameter_names or ())
    except CaptureError:  # it was reported where it was measured, or its measures were kept
        return ""
    return like_weights(kind, *against({n: sent[n] for n in measures.layers}, broadcast))
