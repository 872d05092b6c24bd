"""What a capture holds: rounds, clients, what was shared, norms, anomalies, and what can attack it.

Headers are read, where the measures of updates stand; the tensors of an update only
where they do not, each thread one update at a time.
"""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from pydantic import TypeAdapter

from fedaudit.captures.format.capture_facts import as_dict
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.stated_training import local_training
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.captures.format.update_measures import Measures
from fedaudit.captures.inspect.aggregates import flaws_of_sum, identical_sum, stated_sums
from fedaudit.captures.inspect.applicable_attacks import AttackFit, attacks_for
from fedaudit.captures.inspect.missing_noise import repeated_noise
from fedaudit.captures.inspect.round_measures import Anomaly, look_at_round
from fedaudit.captures.inspect.seen_protections import (
    is_whole,
    protections_of_round,
    protections_stated,
)
from fedaudit.core.recorded_run import Protection
from fedaudit.core.shared import Aggregate, Buffers, Update

ASKED = (
    *("model", "image_shape", "classes", "lr", "local_steps", "batch_size", "batch_norm"),
    *("optimizer", "momentum", "weight_decay", "protections"),
)
"""Facts that attacks ask for, in the order of their worth."""


@dataclass(frozen=True)
class RoundSummary:
    """What was recorded in one round.

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
        kept: Updates that are shown as measured when they were recorded; others were read.
        problems: Files that cannot be used, in words.
    """

    folder: str
    created: str
    facts: Mapping[str, Any]
    unknown: tuple[str, ...]
    assumed: tuple[str, ...]
    found_out: tuple[str, ...]
    rounds: tuple[RoundSummary, ...]
    protections: tuple[Protection, ...]
    anomalies: tuple[Anomaly, ...]
    attacks: tuple[AttackFit, ...]
    kept: int
    problems: tuple[str, ...]

    def as_plain(self) -> dict[str, Any]:
        """The inspection as plain data for JSON."""
        plain: dict[str, Any] = TypeAdapter(Inspection).dump_python(self, mode="json")
        return plain


def inspect(
    capture: StoredCapture, *, workers: int | None = None, verify: bool = False
) -> Inspection:
    """Look at all messages of a capture, once.

    Args:
        capture: The capture.
        workers: Threads, each with one update in memory; None is a core each, at most 4.
        verify: Read all tensors, and report where they are not as their headers say.
    """
    workers = workers or min(4, os.cpu_count() or 1)
    rounds: list[RoundSummary] = []
    anomalies: list[Anomaly] = []
    seen: list[Protection] = list(protections_stated(capture.facts))
    read: set[type] = set()
    example: StoredMessage | None = None
    counts_of_steps: set[int] = set()
    kept_count = 0
    for number in capture.rounds():
        view = look_at_round(capture, number, workers=workers, verify=verify)
        anomalies += view.anomalies
        measures: list[tuple[str, Measures]] = []
        alone: list[Measures] = []
        for look in view.looks:
            if len(look.clients) > 1:
                seen.append(identical_sum(number, look.clients))
            if look.is_sum:
                seen += flaws_of_sum(number, look, capture.facts)
            if look.measures is not None:
                measures.append((look.clients[0], look.measures))
                alone += [] if look.is_sum else [look.measures]
                read |= {Aggregate if look.is_sum else Update}
                read |= {Buffers} if look.measures.buffers else set()
            kept_count += len(look.messages) if look.kept else 0
        every = [m for _, m in measures]
        steps = _steps_of(alone)
        seen += stated_sums(number, view.stored)
        seen += protections_of_round(number, every, alone, view.broadcast or {}, capture.facts)
        anomalies += [*_compare(number, measures), *_steps(capture, number, steps)]
        counts_of_steps |= steps
        rounds.append(_summary(number, view.stored, view.broadcast is not None, measures))
        example = example or next(iter(view.stored), None)
    noisy = [one.round for one in seen if one.name == "noise" and one.round is not None]
    seen += repeated_noise(capture, noisy) if noisy else []
    facts = as_dict(capture.facts)
    training = local_training(capture.facts, example.message) if example else None
    return Inspection(
        folder=str(capture.folder),
        created=capture.manifest.created,
        facts=facts,
        unknown=tuple(n for n in ASKED if n not in facts),
        assumed=training.assumed if training else (),
        found_out=_found_out(capture, counts_of_steps),
        rounds=tuple(rounds),
        protections=_together(seen),
        anomalies=tuple(anomalies),
        attacks=attacks_for(capture, read, example),
        kept=kept_count,
        problems=tuple(map(str, capture.problems)),
    )


def _compare(number: int, measures: list[tuple[str, Measures]]) -> list[Anomaly]:
    """Updates that differ from the others of the round."""
    anomalies: list[Anomaly] = []
    norms = [m.norm for _, m in measures if m.norm > 0 and math.isfinite(m.norm)]
    middle = median(norms) if norms else 0.0
    for client, m in measures if len(norms) >= 3 else ():
        if m.norm > 10 * middle or 0 < m.norm < middle / 10:
            way = "above" if m.norm > middle else "below"
            what = f"its norm {m.norm:.3g} is far {way} the median {middle:.3g}"
            anomalies.append(Anomaly(number, client, what))
    still: dict[str, list[str]] = defaultdict(list)
    for client, m in measures:
        for name, layer in m.layers.items():
            if layer.norm == 0 and m.norm > 0:
                still[name].append(client)
    for name, clients in still.items():
        if len(clients) < len(measures):  # where all have it, it is a frozen layer
            who = clients[0] if len(clients) == 1 else ""
            many = "" if who else f" in {len(clients)} updates"
            anomalies.append(Anomaly(number, who, f"{name!r} is all zeros{many}"))
    usual = Counter(name for _, m in measures for name in (*m.layers, *m.whole))
    for client, m in measures:
        missing = [n for n, c in usual.items() if 2 * c > len(measures) and n not in m.layers]
        missing = [n for n in missing if n not in m.whole and n not in dict(m.unfit)]
        if missing:
            what = f"{missing[0]!r} is missing, which most clients sent"
            anomalies.append(Anomaly(number, client, what))
    return anomalies


def _steps_of(measures: list[Measures]) -> set[int]:
    """Local steps that batch-norm counters show; empty where they were tampered with."""
    moves = {c for m in measures for c in m.counters}
    return {round(c) for c in moves} if all(is_whole(c) and c > 0.5 for c in moves) else set()


def _steps(capture: StoredCapture, number: int, counts: set[int]) -> list[Anomaly]:
    """Counters that contradict what is stated."""
    stated_steps = capture.facts.local_steps
    if stated_steps is None or not counts or counts == {stated_steps}:
        return []
    excerpt = ", ".join(map(str, sorted(counts)[:5]))
    what = f"local_steps = {stated_steps} is stated, and batch-norm counters moved by {excerpt}"
    return [Anomaly(number, "", what)]


def _found_out(capture: StoredCapture, counts: set[int]) -> tuple[str, ...]:
    if capture.facts.local_steps is not None or len(counts) != 1:
        return ()
    steps = next(iter(counts))
    return (f"local_steps = {steps} (every batch-norm counter moved by {steps})",)


def _together(seen: list[Protection]) -> tuple[Protection, ...]:
    """The same finding of several rounds once, with the evidence of the first."""
    alike: dict[tuple[str, bool], list[Protection]] = defaultdict(list)
    for one in seen:
        alike[one.name, one.fault].append(one)
    return tuple(
        ones[0]
        if len(ones) == 1
        else replace(
            ones[0],
            evidence=f"{ones[0].evidence} (round {ones[0].round}; "
            f"in {len({o.round for o in ones})} rounds)",
            clients=sum(o.clients for o in ones),
        )
        for ones in alike.values()
    )


def _summary(
    number: int,
    records: Sequence[StoredMessage],
    broadcast: bool,
    measures: list[tuple[str, Measures]],
) -> RoundSummary:
    kinds = Counter(
        ("aggregate of " if one.message.aggregate else "")
        + ("negated " if one.message.sign < 0 else "")
        + str(one.message.kind)
        for one in records
    )
    examples = [one.message.examples for one in records if one.message.examples is not None]
    norms = [m.norm for _, m in measures if math.isfinite(m.norm) and m.layers]
    sizes = [sum(math.prod(e.shape) for e in one.header.entries.values()) for one in records]
    lengths = [sum(e.end - e.begin for e in one.header.entries.values()) for one in records]
    return RoundSummary(
        number=number,
        broadcast=broadcast,
        clients=tuple(sorted({one.message.client or "" for one in records})),
        updates=len(records),
        kinds=dict(kinds),
        tensors=max((len(one.header.entries) for one in records), default=0),
        numbers=max(sizes, default=0),
        bytes=max(lengths, default=0),
        examples=(min(examples), max(examples)) if examples else None,
        norm=(min(norms), median(norms), max(norms)) if norms else None,
        buffers=sum(bool(m.buffers) for _, m in measures),
    )
