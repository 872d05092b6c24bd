"""Aggregates in a capture: how they show, and what aggregators do to batch norm's buffers."""

from collections.abc import Sequence

import torch

from fedaudit.captures.format.capture_facts import Facts
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.captures.inspect.round_measures import Look
from fedaudit.captures.inspect.seen_protections import is_whole
from fedaudit.core.errors import CaptureError
from fedaudit.core.recorded_run import Protection

CLOSE = 1e-9
"""Relative distance of values that were cut at one bound: their sums are the same."""


def identical_sum(number: int, clients: Sequence[str]) -> Protection:
    """Bit-identical updates of several clients."""
    evidence = (
        f"the updates of {len(clients)} clients are bit-identical: this is one aggregate that was "
        "handed out several times, not so many updates (as Flower's SecAgg+ workflow does)"
    )
    return Protection("aggregate", False, evidence, number, len(clients), float(len(clients)))


def stated_sums(number: int, stored: Sequence[StoredMessage]) -> list[Protection]:
    """Messages that say of themselves that they are sums over clients."""
    sums = [one.message for one in stored if one.message.aggregate]
    if not sums:
        return []
    many = f"{len(sums[0].weights)} clients" if sums[0].weights else "clients"
    evidence = f"a sum or mean over {many} was recorded as such"
    return [Protection("aggregate", False, evidence, number, len(sums))]


def flaws_of_sum(number: int, look: Look, facts: Facts) -> list[Protection]:
    """Values that the aggregator cut off, and counters that are not what clients counted.

    SecAgg+ in Flower 1.42 clips each weighted value to ±8, and shifts and scales back arrays but
    not single numbers, which batch norm's counters are.
    """
    flaws = []
    counters = look.measures.counters if look.measures else ()
    steps = facts.local_steps
    wrong = [
        c for c in counters if not is_whole(c) or (c <= 0 if steps is None else round(c) != steps)
    ]
    if wrong:
        expectation = f"{steps} step(s)" if steps else "whole steps"
        evidence = (
            f"in an aggregate {len(wrong)} of {len(counters)} batch-norm counters moved by "
            f"{wrong[0]:.4g}, where clients make {expectation}: the aggregator cuts values off, "
            "or does not scale single numbers back (Flower's SecAgg+ clips to ±8 and does both). "
            "What the server averages of buffers is not what clients counted"
        )
        flaws.append(Protection("corrupted counters", True, evidence, number, 1, wrong[0]))
    if (cut := _bound(look.messages[0])) is not None:
        top, count = cut
        evidence = (
            f"{count} numbers of an aggregate are {top:.4g} in size, and none is larger: values "
            "are clipped one by one (Flower's SecAgg+ does so at ±8 over a client's weight), and "
            "large running variances are no longer the clients'"
        )
        flaws.append(Protection("clipped values", True, evidence, number, 1, top))
    return flaws


def _bound(record: StoredMessage) -> tuple[float, int] | None:
    """The largest size of a number that several share; weights of networks are all different."""
    if record.message.kind != "weights":
        return None
    try:
        tensors = [t for t in record.tensors().values() if t.is_floating_point() and t.numel() > 1]
    except CaptureError:
        return None  # looking at it has said so
    top = max((float(t.abs().max()) for t in tensors), default=0.0)
    count = sum(int(torch.count_nonzero(t.abs() >= top * (1 - CLOSE))) for t in tensors)
    return (top, count) if top > 1 and count >= 3 else None  # ones are what norms start from
