"""The tap on Flower: it changes nothing, and records exactly what crosses the wire."""

import gc
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="pip install 'fedaudit[flower]'")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import FitIns, FitRes, Parameters, ndarrays_to_parameters
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

import fedaudit
from fedaudit.captures.format import stored_message
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.readers.safetensors_file import Header, load
from fedaudit.core.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent))
from flower_grid import EXAMPLES, START, Loop, average, fresh, start


@pytest.fixture(autouse=True)
def inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages ask which run they belong to."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "capture"


def test_a_tapped_run_ends_in_the_same_weights_and_is_recorded(folder: Path) -> None:
    plain = start(average(), Loop())
    with fedaudit.tap(Loop(), folder, model="here:Net", classes=2) as grid:
        tapped = start(average(), grid)
    assert all(np.array_equal(plain[k], tapped[k]) for k in START)
    capture = StoredCapture(folder)
    assert (capture.facts.model, capture.facts.lr, capture.facts.classes) == ("here:Net", 0.25, 2)
    assert capture.facts.framework == f"flower {flwr_version()}"
    assert capture.rounds() == (1, 2)
    assert not capture.problems
    for round in (1, 2):
        before = capture.broadcast(round)
        sent = {m.message.client: m for m in capture.messages(round)}
        assert sent.keys() == {"1", "2", "3"}
        for client, stored in sent.items():
            assert stored.message.kind == "weights"
            assert stored.message.examples == EXAMPLES[int(client or 0)]
            assert stored.message.metrics == {
                "num-examples": EXAMPLES[int(client or 0)],
                "train-loss": 1.5,
            }
            for name, value in stored.tensors().items():
                assert torch.equal(value, before[name] + int(client or 0))
    assert torch.equal(capture.broadcast(2)["w"], torch.full((2, 3), 2.25))


def flwr_version() -> str:
    from importlib.metadata import version

    return version("flwr")


def test_a_tapped_strategy_sees_below_a_wrapper_that_clips(folder: Path) -> None:
    """The wire has the raw weights, whatever the strategy makes of them."""
    clipping = DifferentialPrivacyServerSideFixedClipping(average(), 0.0, 0.01, 3)
    start(fedaudit.tap(clipping, folder), Loop())
    capture = StoredCapture(folder)
    sent = {m.message.client: m.tensors() for m in capture.messages(1)}
    assert torch.equal(sent["3"]["w"], torch.full((2, 3), 3.0))


def test_push_and_pull_alone_are_recorded(folder: Path) -> None:
    grid = fedaudit.tap(Loop(), folder)
    assert grid.extra == "a member that Grid does not have"
    assert list(grid.get_node_ids()) == [1, 2, 3]
    assert [node.node_id for node in grid.get_nodes()] == [1, 2, 3]
    arrays = ArrayRecord({k: fresh(a) for k, a in START.items()})
    content = {"arrays": arrays, "config": ConfigRecord({"server-round": 5})}
    message = Message(RecordDict(content), dst_node_id=2, message_type="train")
    ids = list(grid.push_messages(iter([message])))
    assert not list(StoredCapture(folder).messages(5))
    assert len(list(grid.pull_messages(ids))) == 1
    assert [m.message.client for m in StoredCapture(folder).messages(5)] == ["2"]


def test_a_failing_recorder_is_a_warning_and_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    grid = fedaudit.tap(Loop(), folder)
    monkeypatch.setattr("fedaudit.captures.record.recording.write_message", full)
    with pytest.warns(UserWarning, match="no space left"):
        tapped = start(average(), grid)
    assert all(np.array_equal(start(average(), Loop())[k], tapped[k]) for k in START)


class Proxy:
    def __init__(self, cid: str) -> None:
        self.cid = cid


def test_a_strategy_of_the_older_api(folder: Path) -> None:
    from flwr.common import Code, Status
    from flwr.server.strategy import FedAvg as OldFedAvg

    names = ("w", "b")
    strategy = fedaudit.tap(OldFedAvg(), folder, parameter_names=names)
    before = ndarrays_to_parameters(list(START.values()))
    ok = Status(Code.OK, "")

    class Manager:
        def num_available(self) -> int:
            return 2

        def sample(self, **_: Any) -> list[Proxy]:
            return [Proxy("a"), Proxy("b")]

    orders = strategy.configure_fit(1, before, Manager())
    assert [(p.cid, type(o)) for p, o in orders] == [("a", FitIns), ("b", FitIns)]

    def result(value: float, examples: int) -> FitRes:
        after: Parameters = ndarrays_to_parameters([a + value for a in START.values()])
        return FitRes(ok, after, examples, {"loss": 0.5})

    results: Any = [(Proxy("a"), result(1, 1)), (Proxy("b"), result(2, 3))]
    aggregated, _ = strategy.aggregate_fit(1, results, [])
    plain, _ = OldFedAvg().aggregate_fit(1, results, [])
    assert aggregated == plain
    capture = StoredCapture(folder)
    assert capture.broadcast(1).keys() == set(names)
    sent = {m.message.client: m for m in capture.messages(1)}
    assert torch.equal(sent["b"].tensors()["w"], torch.full((2, 3), 2.0))
    assert sent["b"].message.examples == 3


def test_something_else_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"fedaudit\.recording"):
        fedaudit.tap(object(), folder)
    assert not folder.exists()


class Given(Loop):
    """Hands out replies that exist already, as grids do."""

    def __init__(self, replies: list[Message]) -> None:
        super().__init__()
        self.replies = replies

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        del message_ids
        return self.replies


def test_the_tap_holds_one_update_at_a_time_and_none_afterwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight replies of 4 MB arrive at once; they are decoded, measured and written in turn."""
    state = {f"w{k}": np.full((128, 1024), k, np.float32) for k in range(8)}
    size = sum(array.nbytes for array in state.values())
    arrays = ArrayRecord({k: fresh(a) for k, a in state.items()})
    config = {"arrays": arrays, "config": ConfigRecord({"server-round": 1})}
    sent = [Message(RecordDict(config), dst_node_id=k, message_type="train") for k in range(8)]
    replies = []
    for message in sent:
        moved = {k: fresh(a + np.float32(message.metadata.dst_node_id)) for k, a in state.items()}
        content = RecordDict({"arrays": ArrayRecord(moved), "metrics": MetricRecord({})})
        replies.append(Message(content=content, reply_to=message))
    grid = fedaudit.tap(Given(replies), folder)
    tensors: list[int] = []  # bytes of torch's own copies, which tracemalloc does not see
    reads: list[int] = []  # of the broadcast, with which an update is compared
    clone = torch.Tensor.clone

    def counted(tensor: torch.Tensor, **settings: Any) -> torch.Tensor:
        tensors.append(tensor.nbytes)
        return clone(tensor, **settings)

    def read(path: Path, header: Header) -> dict[str, torch.Tensor]:
        reads.append(sum(entry.end - entry.begin for entry in header.entries.values()))
        return load(path, header)

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    monkeypatch.setattr(stored_message, "load", read)

    list(grid.push_messages(sent))
    tracemalloc.start()
    try:
        list(grid.pull_messages([]))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size <= peak < 1.25 * size
    assert after < size / 8
    assert not tensors
    assert max(reads) == size / 8
    assert len(list(StoredCapture(folder).messages(1))) == 8
    record = ref(arrays)
    del arrays, config, sent, replies, message, content
    grid._tapped.replies.clear()
    grid._tapped.waiting.clear()
    gc.collect()
    assert record() is None  # what the server lets go of, the tap does, too


def test_messages_that_are_made_one_at_a_time_are_passed_on_so(folder: Path) -> None:
    """A generator of large models is not put into a list."""
    alive: list[Any] = []
    most = 0

    def made() -> Iterator[Message]:
        nonlocal most
        for node in range(5):
            arrays = ArrayRecord({"w": fresh(np.full(3, node, np.float32))})
            alive.append(ref(arrays))
            content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
            del arrays
            yield Message(content, node, "train")
            del content
            gc.collect()
            most = max(most, sum(one() is not None for one in alive))

    class Streaming(Loop):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            return [str(message.metadata.dst_node_id) for message in messages]

    grid = fedaudit.tap(Streaming(), folder)
    assert list(grid.push_messages(made())) == ["0", "1", "2", "3", "4"]
    assert most <= 2  # that of everybody, which others are compared with, may be alive
    capture = StoredCapture(folder)
    assert [float(capture.broadcast(1, str(c))["w"][0]) for c in range(5)] == [0, 1, 2, 3, 4]


def test_what_single_clients_are_sent_is_recorded_apart(folder: Path) -> None:
    grid = fedaudit.tap(Loop(), folder)
    for value, node in ((1, 1), (1, 2), (5, 3)):
        arrays = ArrayRecord({"w": fresh(np.full(3, value, np.float32))})
        content = {"arrays": arrays, "config": ConfigRecord({"server-round": 1})}
        list(grid.push_messages([Message(RecordDict(content), node, "train")]))
    capture = StoredCapture(folder)
    assert [float(capture.broadcast(1, c)["w"][0]) for c in ("1", "2", "3")] == [1, 1, 5]
