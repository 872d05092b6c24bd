"""The tap on Flower: it changes nothing, and records exactly what crosses the wire."""

import gc
import sys
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch

flwr = pytest.importorskip("flwr", reason="pip install 'fedaudit[flower]'")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.common import FitIns, FitRes, Parameters, ndarrays_to_parameters  # noqa: E402
from flwr.serverapp import Grid  # noqa: E402
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg  # noqa: E402

import fedaudit  # noqa: E402
from fedaudit.attacks.adaptive.assumptions import how_adaptive  # noqa: E402
from fedaudit.captures.format import stored_message  # noqa: E402
from fedaudit.captures.format.capture_reader import StoredCapture  # noqa: E402
from fedaudit.captures.format.observations import observations  # noqa: E402
from fedaudit.captures.format.readers.safetensors_file import Header, load  # noqa: E402
from fedaudit.core.errors import UsageError  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
import nodes  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower"
SHORT: dict[str, Any] = {
    "candidates": 32,
    "latent_steps": 5,
    "stage_steps": 10,
    "pixel_steps": 100,
}
"""A search of a third of the default's time, which finds these faces to an SSIM of 0.98."""
EXAMPLES = {1: 8, 2: 8, 3: 16}
"""Of each node: sums weighted by these are exact, in whatever order they are made."""
START = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}


class Loop(Grid):
    """Three nodes in this process; node k adds k to every number."""

    def __init__(self) -> None:
        self.waiting: dict[str, Message] = {}
        self.extra = "a member that Grid does not have"

    def set_run(self, run: Any) -> None:
        del run

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [1, 2, 3]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"{len(self.waiting)}-{number}"
            self.waiting[message.metadata.message_id] = message
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.answer(self.waiting[i]) for i in message_ids]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        del timeout
        return self.pull_messages(list(self.push_messages(messages)))

    def answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        arrays = {k: a.numpy() + node for k, a in message.content["arrays"].items()}
        content = RecordDict(
            {
                "arrays": ArrayRecord({k: fresh(a) for k, a in arrays.items()}),
                "metrics": MetricRecord({"num-examples": EXAMPLES[node], "train-loss": 1.5}),
            }
        )
        return Message(content=content, reply_to=message)


def fresh(array: Any) -> Any:
    from flwr.app import Array

    return Array(array)


def start(strategy: Any, grid: Any) -> dict[str, Any]:
    arrays = ArrayRecord({k: fresh(a) for k, a in START.items()})
    config = ConfigRecord({"lr": 0.25})
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2, train_config=config)
    return {k: a.numpy() for k, a in result.arrays.items()}


def average() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_available_nodes=3, min_train_nodes=3)


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


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE))  # of Ray's workers
    yield
    for name in [n for n in sys.modules if n.startswith("faces_app")]:
        del sys.modules[name]


@pytest.mark.slow  # what is recorded is tested without Ray above
def test_the_example_is_simulated_captured_and_attacked(
    folder: Path, example: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's own simulation on real faces; one update gives the face away."""
    import runpy

    from fedaudit.attacks.presets.gan_inversion import gan_inversion
    from fedaudit.attacks.presets.subspace_matching import subspace_matching
    from fedaudit.scoring.image_metrics import SSIM

    arguments = ["simulate.py", str(folder), "--clients", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(EXAMPLE / "simulate.py"), run_name="__main__")
    from faces_app.task import load_data

    captured = list(observations(StoredCapture(folder), model="faces_app.task:Net"))
    assert len(captured) == 2
    theirs = torch.cat([load_data(client, 2)[0][:1] for client in range(2)])
    for attack in (gan_inversion(), subspace_matching()):  # as they are, without any setting
        found = attack(captured[0].seen, generator=torch.Generator().manual_seed(0)).images
        assert max(SSIM()(theirs, found.expand_as(theirs)).tolist()) > 0.9


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


@pytest.mark.slow  # test_flower_protections has sums under SecAgg, of smaller networks
def test_the_example_under_secagg_gives_away_everybody(folder: Path, example: None) -> None:
    """The example's own clients and server, without Ray: a sum of three faces is three faces."""
    from faces_app.protected import secret_app, serve_secretly
    from faces_app.server_app import facts_of
    from faces_app.task import load_data
    from flwr.app import Context

    from fedaudit.attacks.presets.gan_inversion import gan_inversion
    from fedaudit.scoring.image_metrics import SSIM

    settings = {
        "clients": 3,
        "num-server-rounds": 1,
        "local-steps": 1,
        "batch-size": 1,
        "lr": 0.1,
        "capture": str(folder),
    }
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    serve_secretly(nodes.Nodes(secret_app, 3), context, settings, facts_of(settings))
    (captured,) = observations(StoredCapture(folder), model="faces_app.task:Net")
    assert captured.seen.client == "aggregate of 3 clients"
    assert captured.seen.batch_size == 3
    made = gan_inversion(**SHORT)(captured.seen, generator=torch.Generator().manual_seed(0))
    assert made.adaptive == "estimated"
    theirs = torch.cat([load_data(client, 3)[0][:1] for client in range(3)])
    for face in theirs:
        assert max(SSIM()(face.expand_as(made.images), made.images).tolist()) > 0.9


def test_the_example_under_local_dp_says_what_attacks_adapt_to(folder: Path, example: None) -> None:
    from faces_app.protected import claim, private_app
    from faces_app.server_app import facts_of, serve

    settings = {
        "num-server-rounds": 1,
        "local-steps": 1,
        "batch-size": 1,
        "lr": 0.1,
        "capture": str(folder),
        "model": "",
    }
    grid = nodes.Nodes(private_app(50.0), 3)
    serve(grid, settings, {**facts_of(settings), "dp": claim(50.0)})
    captured = list(observations(StoredCapture(folder), model="faces_app.task:Net"))
    assert len(captured) == 3
    for capture in captured:
        assert capture.seen.defense is not None
        assert [d.name for d in capture.seen.defense] == ["clipping", "gaussian_noise"]
        assert how_adaptive(capture.seen) == "known"
        # The noise that is claimed is the noise that Flower added.
        update = capture.seen.update
        assert update is not None
        sent = torch.cat([v.flatten() for v in update.tensors.values()])
        assert float(sent.std()) == pytest.approx(capture.seen.defense[1].settings["std"], rel=0.02)


def test_noise_that_nobody_states_and_that_drowns_nothing_is_named(
    folder: Path, example: None
) -> None:
    """A sham ε leaves the update in sight; what noise there is shows in its feature maps."""
    from faces_app.protected import private_app
    from faces_app.server_app import facts_of, serve

    from fedaudit.captures.audit.audit_request import Request
    from fedaudit.captures.audit.capture_study import study_of

    settings = {"num-server-rounds": 1, "local-steps": 1, "batch-size": 1, "lr": 0.1, "model": ""}
    settings |= {"capture": str(folder)}
    serve(nodes.Nodes(private_app(5000.0), 3), settings, facts_of(settings))
    study = study_of(Request(path=folder, model="faces_app.task:Net")).study
    (seen,) = (one for one in study.data.settings["seen"] if one["name"] == "noise")
    assert seen["value"] == pytest.approx(9.6896e-4, rel=0.02)  # √(2 ln(1.25 / 1e-5)) / 5000
    # Flower draws the noise anew in each run, so that the last digit differs.
    assert f"standard deviation of about {seen['value']:.3g}" in seen["evidence"]
