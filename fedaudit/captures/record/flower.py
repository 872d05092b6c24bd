"""A transparent tap for Flower: records what crosses the wire, and changes nothing.

    strategy.start(grid=fedaudit.tap(grid, "capture", model="my_app.task:Net"), …)   # Message API
    strategy = fedaudit.tap(strategy, "capture", model="my_app.task:Net")            # either API

Below any wrapper of a strategy the grid sees what clients really sent: under clipping by the
server, say, a strategy sees clipped weights, and the grid the raw ones. A tapped strategy of the
Message API is the same thing; one of the older API sees what its workflow hands it (under SecAgg+,
the sum).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast
from weakref import ref

from flwr.app import ArrayRecord, Message
from flwr.common import FitIns, FitRes, Parameters, parameters_to_ndarrays
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy as OldStrategy
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedaudit.captures.format.capture_facts import DpClaim, Facts, Keywords, Kind, check_facts
from fedaudit.captures.record.recording import Recording, recording
from fedaudit.captures.record.recording_warnings import failures_as_warnings
from fedaudit.core.errors import UsageError

T = TypeVar("T")
TRAIN = "train"
ROUND_KEY = "server-round"
EXAMPLES_KEY = "num-examples"
MASKED = "masked_params"
"""What SecAgg+ in Flower calls what a client sends."""


def tap(tapped: T, folder: str | Path, *, kind: Kind = "weights", **facts: Unpack[Keywords]) -> T:
    """Record a Flower run into a capture folder while it goes on as without.

    What cannot be recorded (a full disk, a message of another form) is a warning and never an
    error: the training does not depend on its auditor.

    Args:
        tapped: A `Grid`, or a strategy of the Message API or of the older API.
        folder: Of the capture; one a run.
        kind: What clients send: "weights" as Flower's own examples do, "delta" or "gradient".
        **facts: What is known of the federation (`capture_facts.Facts`). A learning rate
            that the server sends as `lr` is recorded as a fact unless one is given.

    Returns:
        A substitute for `tapped` that may be used in a `with` block or as it is.

    Raises:
        UsageError: `tapped` is neither; or as `fedaudit.recording`.
    """
    taps = {Grid: GridTap, Strategy: StrategyTap, OldStrategy: OldStrategyTap}
    kind_of_tap = next((taps[of] for of in taps if isinstance(tapped, of)), None)
    if kind_of_tap is None:
        raise UsageError(
            f"tap takes a Flower Grid or Strategy, not {type(tapped).__name__}. In a training loop "
            "of your own use fedaudit.recording."
        )
    known = {"framework": f"flower {version('flwr')}", **facts}
    tape = Tape(recording(folder, **cast(Keywords, known)), kind, check_facts(facts))
    return cast(T, kind_of_tap(tapped, tape))


@dataclass
class Tape:
    """Writes what the taps see into a capture; holds no message that has passed.

    Args:
        record: Where to.
        kind: What clients send.
        facts: That were given.
    """

    record: Recording
    kind: Kind
    facts: Facts
    _sent: tuple[int, ref[ArrayRecord]] | None = None
    _rounds: dict[str, int] = field(default_factory=dict)
    _last: int = 0

    def pushed(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Messages that are about to leave the server."""
        return _each(messages, self._pushed)

    def _pushed(self, message: Message) -> None:
        if message.metadata.message_type.partition(".")[0] != TRAIN:
            return
        content = message.content
        config = {k: v for record in content.config_records.values() for k, v in record.items()}
        self._last = int(config.get(ROUND_KEY, message.metadata.group_id or self._last or 1))
        self._learning_rate(config.get("lr"))
        self._clipping(config.get("clipping_norm"))
        for name, arrays in content.array_records.items():
            first = self._sent is None or self._sent[0] != self._last
            previous = None if first or self._sent is None else self._sent[1]()
            if previous is arrays:
                return  # one record for everybody, as Flower's own strategies send it
            if first:
                self._sent = self._last, ref(arrays)
                self.record.broadcast(self._last, _Arrays(arrays))
            elif previous is None or not _same(previous, arrays):
                client = str(message.metadata.dst_node_id)
                self.record.broadcast(self._last, _Arrays(arrays), client=client)
            if len(content.array_records) > 1:
                others = sorted(set(content.array_records) - {name})
                raise UsageError(f"the server sends further arrays that are not recorded: {others}")

    def asked(self, ids: Iterable[str]) -> list[str]:
        """Ids of messages that have just left; their replies belong to this round."""
        new_ids = list(ids)
        self._rounds |= dict.fromkeys(new_ids, self._last)
        return new_ids

    def pulled(self, replies: Iterable[Message]) -> Iterable[Message]:
        """Replies that have just arrived."""
        return _each(replies, self._pulled)

    def _pulled(self, reply: Message) -> None:
        if reply.metadata.message_type.partition(".")[0] != TRAIN or reply.has_error():
            return
        round = self._rounds.pop(reply.metadata.reply_to_message_id, self._last)
        records = reply.content.array_records
        metrics = {k: v for r in reply.content.metric_records.values() for k, v in r.items()}
        examples = metrics.get(EXAMPLES_KEY)
        if any(MASKED in record for record in reply.content.config_records.values()):
            raise UsageError(
                "SecAgg+ masks what clients send, and the sum is made above the grid. Put the tap "
                "round the strategy instead: strategy = fedaudit.tap(strategy, …)"
            )
        for arrays in list(records.values())[:1]:
            self.record.update(
                round,
                reply.metadata.src_node_id,
                _Arrays(arrays),
                kind=self.kind,
                examples=int(examples) if isinstance(examples, int | float) else None,
                metrics=metrics,
            )
        if len(records) > 1:
            raise UsageError(f"clients send further arrays: only {next(iter(records))} is recorded")

    def positional(self, parameters: Parameters) -> dict[str, Any]:
        """Arrays of the older API by name; by number where no names are known."""
        arrays = parameters_to_ndarrays(parameters)
        names = self.facts.parameter_names or ()
        if len(names) != len(arrays):
            names = tuple(str(k) for k in range(len(arrays)))
        return dict(zip(names, arrays, strict=True))

    def _learning_rate(self, value: object) -> None:
        if isinstance(value, int | float) and self.facts.lr is None:
            self.facts = replace(self.facts, lr=float(value))
            self.record.add_facts(check_facts({"lr": float(value)}))

    def _clipping(self, value: object) -> None:
        """The bound that Flower's client-side clipping is told; the first, where it adapts."""
        if isinstance(value, int | float) and value > 0 and self.facts.dp is None:
            self.facts = replace(self.facts, dp=DpClaim(clip=float(value), where="server"))
            self.record.add_facts(Facts(dp=self.facts.dp))


def _own(name: str) -> Any:
    """A method that is the tapped object's own; abstract ones must be written out."""

    def method(tap: "_Tap", *args: Any, **kwargs: Any) -> Any:
        return getattr(tap._tapped, name)(*args, **kwargs)

    return method


class _Tap:
    """A proxy of the tapped object: whatever is not recorded is the object's own."""

    def __init__(self, tapped: Any, tape: Tape) -> None:
        self._tapped, self._tape = tapped, tape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tapped, name)


class GridTap(_Tap, Grid):
    """A grid that records what passes; everything else is the grid's own."""

    set_run, create_message = _own("set_run"), _own("create_message")
    get_node_ids, get_nodes = _own("get_node_ids"), _own("get_nodes")

    def __enter__(self) -> "GridTap":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    @property
    def run(self) -> Any:
        """As the grid."""
        return self._tapped.run

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the grid, recorded."""
        return self._tape.asked(self._tapped.push_messages(self._tape.pushed(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the grid, recorded."""
        return self._tape.pulled(self._tapped.pull_messages(message_ids))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As the grid, recorded."""
        leaving = self._tape.pushed(messages)
        return self._tape.pulled(self._tapped.send_and_receive(leaving, timeout=timeout))


class StrategyTap(_Tap, Strategy):
    """A strategy of the Message API that starts on a tapped grid."""

    configure_train, aggregate_train = _own("configure_train"), _own("aggregate_train")
    configure_evaluate, aggregate_evaluate = _own("configure_evaluate"), _own("aggregate_evaluate")
    summary = _own("summary")

    def start(self, grid: Grid, *args: Any, **kwargs: Any) -> Any:
        """As the strategy."""
        return self._tapped.start(GridTap(grid, self._tape), *args, **kwargs)


class OldStrategyTap(_Tap, OldStrategy):
    """A strategy of the older API that records what it sends and what it is handed."""

    initialize_parameters, evaluate = _own("initialize_parameters"), _own("evaluate")
    configure_evaluate, aggregate_evaluate = _own("configure_evaluate"), _own("aggregate_evaluate")

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: Any
    ) -> list[tuple[ClientProxy, FitIns]]:
        """As the strategy, recorded."""
        orders = self._tapped.configure_fit(server_round, parameters, client_manager)
        for number, (proxy, order) in enumerate(orders):
            first = orders[0][1].parameters
            if number and (order.parameters is first or order.parameters == first):
                continue
            with failures_as_warnings():
                tensors = self._tape.positional(order.parameters)
                client = proxy.cid if number else None
                self._tape.record.broadcast(server_round, tensors, client=client)
        return orders

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: Any
    ) -> Any:
        """As the strategy, recorded."""
        for proxy, result in results:
            with failures_as_warnings():
                self._tape.record.update(
                    server_round,
                    proxy.cid,
                    self._tape.positional(result.parameters),
                    kind=self._tape.kind,
                    examples=result.num_examples or None,
                    metrics=result.metrics,
                )
        return self._tapped.aggregate_fit(server_round, results, failures)


class _Arrays(Mapping[str, Any]):
    """Named arrays of a record, each decoded when it is asked for: an update's worth of memory."""

    def __init__(self, arrays: ArrayRecord) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Any:
        return self._arrays[name].numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _each(messages: Iterable[Message], record: Callable[[Message], None]) -> Iterable[Message]:
    """The messages, recorded: those of a collection at once, others as they are made.

    A strategy may make a model for each client only when it is asked for the next message, and a
    grid hand out replies so: to put them in a list would hold all of them.
    """

    def recorded(message: Message) -> Message:
        with failures_as_warnings():
            record(message)
        return message

    if not isinstance(messages, Collection):
        return map(recorded, messages)
    for message in messages:
        recorded(message)
    return messages


def _same(one: ArrayRecord, other: ArrayRecord) -> bool:
    return one.keys() == other.keys() and all(one[k].data == other[k].data for k in one)
