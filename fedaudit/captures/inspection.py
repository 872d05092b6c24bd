"""What a capture holds: rounds, clients, what was shared, norms, anomalies, and what can attack it.

Each thread has one message in memory at a time; a capture of a thousand updates is read once.
"""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from fedaudit.captures.facts import stated
from fedaudit.captures.fitting import AttackFit, attacks_for
from fedaudit.captures.identical import identical_groups
from fedaudit.captures.local_training import local_training
from fedaudit.captures.protections import (
    Seen,
    is_whole,
    protections_of_round,
    protections_stated,
)
from fedaudit.captures.sharing import named
from fedaudit.captures.statistics import Measures, measure
from fedaudit.captures.stored import StoredCapture, StoredMessage
from fedaudit.errors import CaptureError, UsageError
from fedaudit.types import Aggregate, Buffers, Update


@dataclass(frozen=True)
class Anomaly:
    """Something unusual; `client` is "" where it is about the whole round."""

    round: int | None
    client: str
    what: str


@dataclass(frozen=True)
class RoundSummary:
    """One round.

    Attributes:
        number: Of the round.
        broadcast: Whether one was recorded, and can be read.
        clients: Who sent something.
        updates: Messages.
        kinds: How often each kind was sent; an aggregate counts as "aggregate of weights" etc.
        tensors, numbers, bytes: Of an update, the largest.
        examples: Smallest and largest number of images that clients say; None if unknown.
        norm: Smallest, median and largest L2 norm of what updates change; None if none is known.
        buffers: How many updates come with batch-norm buffers.
    """

    number: int
    broadcast: bool
    clients: tuple[str, ...]
    updates: int
    kinds: Mapping[str, int]
    tensors: int
    numbers: int
    bytes: int
    examples: tuple[int, int] | None
    norm: tuple[float, float, float] | None
    buffers: int


@dataclass(frozen=True)
class Inspection:
    """What `fedaudit inspect` shows.

    Attributes:
        folder, created: Of the capture.
        facts: That are stated.
        unknown: Facts that attacks ask for and nobody stated.
        assumed: Settings that are taken for what frameworks do unless told otherwise.
        found_out: Facts that the numbers show, with evidence; state them to have them used.
        rounds, protections, anomalies, attacks: See there.
        problems: Files that cannot be used, in words.
    """

    folder: str
    created: str
    facts: Mapping[str, Any]
    unknown: tuple[str, ...]
    assumed: tuple[str, ...]
    found_out: tuple[str, ...]
    rounds: tuple[RoundSummary, ...]
    protections: tuple[Seen, ...]
    anomalies: tuple[Anomaly, ...]
    attacks: tuple[AttackFit, ...]
    problems: tuple[str, ...]

    def as_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        plain: dict[str, Any] = TypeAdapter(Inspection).dump_python(self, mode="json")
        return plain


def inspect(capture: StoredCapture, *, workers: int | None = None) -> Inspection:
    """Look at all messages of a capture, once.

    Args:
        capture: The capture.
        workers: Threads, each with one update in memory; None is a core each, at most 4.
    """
    workers = workers or min(4, os.cpu_count() or 1)
    rounds: list[RoundSummary] = []
    anomalies: list[Anomaly] = []
    seen: list[Seen] = list(protections_stated(capture.facts))
    read: set[type] = set()
    example: StoredMessage | None = None
    counted: set[int] = set()
    for number in capture.rounds():
        stored = list(capture.messages(number))
        broadcast = _broadcast(capture, number, anomalies)
        groups = identical_groups(stored)
        measured: list[tuple[str, Measures]] = []
        with ThreadPoolExecutor(workers) as pool:
            look_at = partial(_look, capture, broadcast, number)
            looks = list(pool.map(look_at, [group[0] for group in groups]))
        for group, look in zip(groups, looks, strict=True):
            found = look.measures
            anomalies += look.anomalies
            if look.error is not None:
                capture.report(look.error)
            names = sorted({one.message.client or "" for one in group})
            if len(names) > 1:
                seen.append(_aggregate(number, names))
            if found is not None:
                measured.append((names[0], found))
                whole = group[0].message.aggregate or len(names) > 1
                read |= {Aggregate if whole else Update} | ({Buffers} if found.buffers else set())
        seen += _stated_aggregates(number, stored)
        seen += protections_of_round(number, measured, broadcast or (), capture.facts)
        anomalies += [*_compared(number, measured), *_steps(capture, number, measured)]
        counted |= steps_of(measured)
        rounds.append(_summary(number, stored, broadcast is not None, measured))
        example = example or next(iter(stored), None)
    known = stated(capture.facts)
    training = local_training(capture.facts, example.message) if example else None
    return Inspection(
        folder=str(capture.folder),
        created=capture.manifest.created,
        facts=known,
        unknown=tuple(n for n in _asked() if n not in known),
        assumed=training.assumed if training else (),
        found_out=_found_out(capture, counted),
        rounds=tuple(rounds),
        protections=_together(seen),
        anomalies=tuple(anomalies),
        attacks=attacks_for(capture, read, example),
        problems=tuple(map(str, capture.problems)),
    )


def _asked() -> tuple[str, ...]:
    """Facts that attacks ask for, in the order of their worth."""
    return (
        *("model", "image_shape", "classes", "lr", "local_steps", "batch_size", "batch_norm"),
        *("optimizer", "momentum", "weight_decay", "protections"),
    )


def _broadcast(
    capture: StoredCapture, number: int, anomalies: list[Anomaly]
) -> Mapping[str, Tensor] | None:
    try:
        return named(capture.broadcast(number), capture.facts.parameter_names or ())
    except CaptureError as error:
        capture.report(error)
    except UsageError:
        anomalies.append(
            Anomaly(number, "", "no broadcast was recorded: updates mean nothing alone")
        )
    return None


@dataclass(frozen=True)
class _Look:
    """What one message is like."""

    measures: Measures | None
    anomalies: tuple[Anomaly, ...] = ()
    error: CaptureError | None = None


def _look(
    capture: StoredCapture,
    broadcast: Mapping[str, Tensor] | None,
    number: int,
    stored: StoredMessage,
) -> _Look:
    """Measure one message; runs in a thread, so that it changes nothing."""
    anomalies = []
    client = stored.message.client or ""
    names = capture.facts.parameter_names or ()
    own = stored.path.parent / stored.path.name.replace("update-", "broadcast-", 1)
    try:
        if own.exists():
            broadcast = named(capture.broadcast(number, client), names)
        found = measure(stored, broadcast, capture.facts.buffers, names)
    except CaptureError as error:
        return _Look(None, error=error)
    for name, reason in found.unfit[:3]:
        anomalies.append(Anomaly(number, client, f"{name!r}: {reason}"))
    for name in found.not_finite[:3]:
        anomalies.append(Anomaly(number, client, f"{name!r} holds NaN or infinity"))
    for name in found.negative_variances[:3]:
        anomalies.append(Anomaly(number, client, f"the running variance {name!r} is negative"))
    if found.layers and found.norm == 0:
        anomalies.append(Anomaly(number, client, "it changes nothing: the client did not train"))
    return _Look(found, tuple(anomalies))


def _compared(number: int, measured: list[tuple[str, Measures]]) -> list[Anomaly]:
    """Updates that differ from the others of the round."""
    found: list[Anomaly] = []
    norms = [m.norm for _, m in measured if m.norm > 0 and math.isfinite(m.norm)]
    middle = median(norms) if norms else 0.0
    for client, m in measured:
        if len(norms) >= 3 and m.norm > 10 * middle:
            found.append(
                Anomaly(
                    number, client, f"its norm {m.norm:.3g} is far above the median {middle:.3g}"
                )
            )
        elif len(norms) >= 3 and 0 < m.norm < middle / 10:
            found.append(
                Anomaly(
                    number, client, f"its norm {m.norm:.3g} is far below the median {middle:.3g}"
                )
            )
    still: dict[str, list[str]] = defaultdict(list)
    for client, m in measured:
        for name, layer in m.layers.items():
            if layer.norm == 0 and m.norm > 0:
                still[name].append(client)
    for name, clients in still.items():
        if len(clients) < len(measured):  # where all have it, it is a frozen layer
            who = clients[0] if len(clients) == 1 else ""
            many = "" if who else f" in {len(clients)} updates"
            found.append(Anomaly(number, who, f"{name!r} is all zeros{many}"))
    usual = Counter(name for _, m in measured for name in (*m.layers, *m.whole))
    for client, m in measured:
        missing = [n for n, c in usual.items() if 2 * c > len(measured) and n not in m.layers]
        missing = [n for n in missing if n not in m.whole and n not in dict(m.unfit)]
        if missing:
            found.append(
                Anomaly(number, client, f"{missing[0]!r} is missing, which most clients sent")
            )
    return found


def steps_of(measured: list[tuple[str, Measures]]) -> set[int]:
    """Local steps that batch-norm counters show; empty where they were tampered with."""
    moves = {c for _, m in measured for c in m.counters}
    return (
        {round(c) for c in moves}
        if moves and all(is_whole(c) and c > 0.5 for c in moves)
        else set()
    )


def _steps(
    capture: StoredCapture, number: int, measured: list[tuple[str, Measures]]
) -> list[Anomaly]:
    """Counters that contradict what is stated."""
    stated_steps, counted = capture.facts.local_steps, steps_of(measured)
    if stated_steps is None or not counted or counted == {stated_steps}:
        return []
    shown = ", ".join(map(str, sorted(counted)[:5]))
    what = f"local_steps = {stated_steps} is stated, and batch-norm counters moved by {shown}"
    return [Anomaly(number, "", what)]


def _found_out(capture: StoredCapture, counted: set[int]) -> tuple[str, ...]:
    if capture.facts.local_steps is not None or len(counted) != 1:
        return ()
    steps = next(iter(counted))
    return (f"local_steps = {steps} (every batch-norm counter moved by {steps})",)


def _aggregate(number: int, names: list[str]) -> Seen:
    evidence = (
        f"the updates of {len(names)} clients are bit-identical: this is one aggregate that was "
        "handed out several times, not so many updates (as Flower's SecAgg+ workflow does)"
    )
    return Seen("aggregate", False, evidence, number, len(names))


def _stated_aggregates(number: int, stored: list[StoredMessage]) -> list[Seen]:
    """Messages that say of themselves that they are sums over clients."""
    sums = [one.message for one in stored if one.message.aggregate]
    if not sums:
        return []
    over = f"over {len(sums[0].weights)} clients" if sums[0].weights else "over clients"
    return [
        Seen("aggregate", False, f"a sum or mean {over} was recorded as such", number, len(sums))
    ]


def _together(seen: list[Seen]) -> tuple[Seen, ...]:
    """The same finding of several rounds once, with the evidence of the first."""
    found: dict[tuple[str, bool], list[Seen]] = defaultdict(list)
    for one in seen:
        found[one.name, one.fault].append(one)
    return tuple(
        ones[0]
        if len(ones) == 1
        else Seen(
            ones[0].name,
            ones[0].fault,
            f"{ones[0].evidence} (round {ones[0].round}; in {len({o.round for o in ones})} rounds)",
            ones[0].round,
            sum(o.clients for o in ones),
            ones[0].value,
        )
        for ones in found.values()
    )


def _summary(
    number: int, stored: list[StoredMessage], broadcast: bool, measured: list[tuple[str, Measures]]
) -> RoundSummary:
    kinds = Counter(
        ("aggregate of " if one.message.aggregate else "")
        + ("negated " if one.message.sign < 0 else "")
        + str(one.message.kind)
        for one in stored
    )
    examples = [one.message.examples for one in stored if one.message.examples is not None]
    norms = [m.norm for _, m in measured if math.isfinite(m.norm) and m.layers]
    sizes = [sum(math.prod(e.shape) for e in one.header.entries.values()) for one in stored]
    return RoundSummary(
        number=number,
        broadcast=broadcast,
        clients=tuple(sorted({one.message.client or "" for one in stored})),
        updates=len(stored),
        kinds=dict(kinds),
        tensors=max((len(one.header.entries) for one in stored), default=0),
        numbers=max(sizes, default=0),
        bytes=max((one.header.size for one in stored), default=0),
        examples=(min(examples), max(examples)) if examples else None,
        norm=(min(norms), median(norms), max(norms)) if norms else None,
        buffers=sum(bool(m.buffers) for _, m in measured),
    )
