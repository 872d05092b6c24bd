"""From a recorded capture to what attacks take: one `Capture` a client and round, streaming."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from fedaudit.captures.format.capture_facts import DpClaim, Facts
from fedaudit.captures.format.capture_network import check_size, image_shape, model_of, names_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.identical_messages import identical_groups
from fedaudit.captures.format.message_header import Message
from fedaudit.captures.format.message_tensors import check_finite, check_fits, shared_of, start
from fedaudit.captures.format.stated_training import check_size as check_training
from fedaudit.captures.format.stated_training import images_behind, local_training
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.captures.format.tensor_names import is_numbered, name_tensors, plain_names
from fedaudit.core.capture import Capture
from fedaudit.core.errors import CaptureError, UsageError
from fedaudit.core.observation import DefenseFacts, ModelSpec, Observation
from fedaudit.core.shared import Aggregate, Buffers, Shared, Update

SUM = "secure_aggregation"
"""The defense that a sum over clients shows."""


def observations(
    capture: StoredCapture,
    *,
    rounds: Collection[int] | None = None,
    clients: Collection[str] | None = None,
    model: ModelSpec | str | None = None,
    allow_code: bool = False,
) -> Iterator[Capture]:
    """What the server saw, message by message; one update is in memory at a time.

    A file that cannot be used becomes one of `capture.problems`, and the others go on. Updates of
    different clients that are bit-identical are one `Aggregate`; its client is named
    "aggregate of …".

    Args:
        capture: The capture.
        rounds: Only these; None is all.
        clients: Only these; an aggregate counts where one of them is in it.
        model: What to build in place of what the capture names.
        allow_code: As in `fedaudit.captures.format.capture_network.model_of`.

    Raises:
        UsageError: The model is not known, cannot be built, or only the capture names its code.
    """
    spec = model_of(capture.facts, model, allow_code=allow_code)

    def wanted(one: StoredMessage) -> bool:
        return clients is None or one.message.client in clients

    for round in capture.rounds() if rounds is None else sorted(rounds):
        yield from (Capture(seen) for _, seen in observe(capture, spec, round, wanted))


def observe(
    capture: StoredCapture, spec: ModelSpec, round: int, wanted: Callable[[StoredMessage], bool]
) -> Iterator[tuple[tuple[StoredMessage, ...], Observation]]:
    """What the server saw in a round, with the messages behind it: several of an aggregate.

    A file that cannot be used becomes one of `capture.problems`, and the others go on. An
    aggregate counts where one of the messages behind it is wanted.
    """
    records = list(capture.messages(round))  # headers only
    usual = _usual(records)
    for group in identical_groups(records):
        if not any(map(wanted, group)):
            continue
        together = len({one.message.client for one in group}) > 1
        for one in group[:1] if together else filter(wanted, group):
            members = group if together else (one,)
            try:
                _check_complete(one, usual)
                yield members, _observe(capture, spec, round, members)
            except CaptureError as error:
                capture.report(error)
            except UsageError as error:
                capture.report(CaptureError(one.path, str(error)))


def _defenses_of(facts: Facts, message: Message) -> tuple[DefenseFacts, ...] | None:
    """The protections that are stated; () says "known to be none", None "not known"."""
    protections = [*(facts.protections or ()), *message.protections]
    defenses = [DefenseFacts(name, {}) for name in dict.fromkeys(protections)]
    if facts.dp is not None:
        defenses += _private(facts.dp)
    unknown = facts.protections is None or facts.dp is not None
    return None if not defenses and unknown else tuple(defenses)


def _private(claim: DpClaim) -> list[DefenseFacts]:
    """A claim as the registered defenses that do it; of clients, what reaches the server."""
    if claim.unit in {"example", "record", "image"}:
        settings = {"noise_multiplier": claim.noise, "max_grad_norm": claim.clip}
        values = {name: value for name, value in settings.items() if value is not None}
        return [DefenseFacts("dpsgd", values)]
    defenses = []
    if claim.clip is not None:
        defenses.append(DefenseFacts("clipping", {"max_norm": claim.clip}))
    scale = claim.sensitivity or claim.clip
    if claim.noise and scale and claim.where != "server":
        defenses.append(DefenseFacts("gaussian_noise", {"std": claim.noise * scale, "of": "entry"}))
    return defenses


def _usual(records: list[StoredMessage]) -> frozenset[str]:
    """Names that more than half of a round's messages have."""
    counts = Counter(n for one in records for n in plain_names(dict.fromkeys(one.header.entries)))
    return frozenset(name for name, count in counts.items() if count * 2 > len(records))


def _check_complete(one: StoredMessage, usual: frozenset[str]) -> None:
    if missing := usual - set(plain_names(dict.fromkeys(one.header.entries))):
        raise CaptureError(
            one.path, "it is missing, and most clients of the round sent it", key=min(missing)
        )


def _observe(
    capture: StoredCapture, spec: ModelSpec, round: int, group: tuple[StoredMessage, ...]
) -> Observation:
    """One observation of bit-identical messages; of one message as a rule."""
    facts, first = capture.facts, group[0]
    message = first.message
    origin = capture.broadcast_message(round, message.client)
    broadcast_tensors = origin.tensors()
    for name, tensor in broadcast_tensors.items():
        check_finite(origin.path, name, tensor)
    check_size(spec, facts, (tensor.shape for tensor in broadcast_tensors.values()))
    names = names_of(spec, facts) if is_numbered(broadcast_tensors) else ()
    renaming = capture.renaming
    broadcast = renaming.names(name_tensors(broadcast_tensors, names))
    tensors = renaming.names(name_tensors(first.tensors(), names))
    check_fits(first.path, tensors, broadcast)
    local = local_training(facts, message)
    weights = _weights(facts, group)
    over = sum(weights) if message.aggregate else 1.0
    buffers = None if facts.buffers is None else tuple(map(renaming.name, facts.buffers))
    shared = shared_of(message, tensors, broadcast, buffers=buffers, over=over)
    _check_moved(first, shared)
    images, training = local.images, local.settings
    client = message.client or ""
    if message.aggregate or len(group) > 1:
        # What identical messages hold is a mean; an `Aggregate` is a sum.
        shared = tuple(
            _sum_of(part, weights, 1.0 if message.aggregate else sum(weights)) for part in shared
        )
        images = _images_of_sum(facts, group)
        client = f"aggregate of {len(group)} clients" if len(group) > 1 else client
        if training is not None:
            # The mean is the update of one client that takes all their batches at once.
            training = replace(training, batch_size=training.batch_size * len(weights))
    check_training(replace(local, images=images), image_shape(facts, spec))
    return Observation(
        model=spec,
        before=start(broadcast),
        shared=shared,
        image_shape=image_shape(facts, spec),
        batch_size=images,
        num_classes=facts.classes or spec.arguments.get("classes"),
        training=training,
        batch_norm=facts.batch_norm,
        defense=_with_sum(_defenses_of(facts, message), shared, stated_sum=message.aggregate),
        round=round,
        client=client,
    )


def _weights(facts: Facts, group: tuple[StoredMessage, ...]) -> tuple[float, ...]:
    """w_k of an aggregate: as stated, else 1; of identical updates: images of each, else 1 each."""
    message = group[0].message
    if message.aggregate:
        return message.weights or (1.0,)
    examples = [one.message.examples for one in group]
    if len(group) > 1 and all(examples):
        return tuple(float(count or 0) for count in examples)
    return (1.0,) * len(group)


def _images_of_sum(facts: Facts, group: tuple[StoredMessage, ...]) -> int | None:
    """Images behind an aggregate, of all its clients; None where one does not say."""
    message = group[0].message
    if not message.aggregate:
        counts = [images_behind(facts, one.message) for one in group]
        return None if None in counts else sum(c or 0 for c in counts)
    each = images_behind(facts, replace(message, examples=None))
    total = each * len(message.weights) if each and message.weights else None
    has = message.examples
    return min(total, has) if total and has else has or total


def _with_sum(
    statement: tuple[DefenseFacts, ...] | None, shared: tuple[Shared, ...], *, stated_sum: bool
) -> tuple[DefenseFacts, ...] | None:
    """The protections with that of a sum, which bit-identical updates show."""
    sums = [part for part in shared if isinstance(part, Aggregate)]
    if not sums or any(one.name.replace(" ", "_") == SUM for one in statement or ()):
        return statement
    return (*(statement or ()), DefenseFacts(SUM, {}, estimated=not stated_sum))


def _sum_of(part: Shared, weights: tuple[float, ...], times: float) -> Shared:
    if isinstance(part, Update | Buffers):
        tensors: Mapping[str, Tensor] = {
            n: t * times for n, t in part.tensors.items() if t.is_floating_point()
        }
        kind = part.kind if isinstance(part, Update) else "buffers"
        return Aggregate(kind, tensors, weights)
    return part


def _check_moved(one: StoredMessage, shared: tuple[Shared, ...]) -> None:
    update = shared[0]
    if isinstance(update, Update) and not any(bool(t.any()) for t in update.tensors.values()):
        raise CaptureError(
            one.path, "it holds nothing but what the server had sent: there is nothing to attack"
        )
