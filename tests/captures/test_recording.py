import json
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import safetensors.torch
import torch

import fedaudit
from fedaudit.captures.format import capture_manifest, message_header
from fedaudit.captures.format.capture_facts import Facts, Keywords
from fedaudit.captures.format.capture_paths import slug
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.core.errors import ConfigError, StorageError, UnknownNameError, UsageError


def state() -> dict[str, torch.Tensor]:
    return {
        "z.weight": torch.arange(6.0).reshape(2, 3),
        "a.bias": torch.ones(2, dtype=torch.float16),
        "a.num_batches_tracked": torch.tensor(3),
    }


def test_importing_fedaudit_stays_cheap() -> None:
    code = (
        "import sys, fedaudit; assert 'torch' not in sys.modules; "
        "assert 'recording' in dir(fedaudit); fedaudit.recording; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    with fedaudit.recording(tmp_path / "c", model="mlp", lr=0.1, mean=(0.5,)) as record:
        record.broadcast(1, state())
        record.update(
            1,
            "../../etc/passwd",
            state(),
            kind="delta",
            sign=-1,
            examples=7,
            metrics={"loss": float("nan"), "per class": np.array([1.0, 2.0]), "note": b"x"},
            protections=("clipping 1",),
        )
    stored = StoredCapture(tmp_path / "c")
    assert (stored.facts.model, stored.facts.lr, stored.facts.mean) == ("mlp", 0.1, (0.5,))
    assert stored.facts.momentum is None
    (one,) = stored.messages(1)
    message = one.message
    assert (message.client, message.kind, message.sign) == ("../../etc/passwd", "delta", -1)
    assert (message.examples, message.protections) == (7, ("clipping 1",))
    assert message.metrics == {"loss": "nan", "per class": [1.0, 2.0], "note": "b'x'"}
    for sent in (one.tensors(), stored.broadcast(1)):
        assert list(sent) == list(state())  # the order, which safetensors does not keep
        assert all(torch.equal(sent[name], value) for name, value in state().items())
        assert all(sent[name].dtype == value.dtype for name, value in state().items())
    assert not stored.problems


def test_nobody_else_may_read_it_and_no_name_leaves_the_folder(tmp_path: Path) -> None:
    record = fedaudit.recording(tmp_path / "c")
    for client in ("../../x", "/abs", "a\x00b", "é" * 300, "", "A", "a"):
        record.update(1, client, state(), kind="weights")
    record.broadcast(1, state())
    paths = sorted((tmp_path / "c").rglob("*"))
    assert len([p for p in paths if p.name.startswith("update-")]) == 7
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]
    for path in (tmp_path / "c", *paths):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_slugs_differ_where_names_do() -> None:
    assert slug("A") != slug("a")
    assert slug("a/b").startswith("a-b-")
    assert len(slug("x" * 1000)) < 60


def test_the_same_message_twice_is_kept_once_and_another_one_beside_it(tmp_path: Path) -> None:
    for _ in range(2):
        fedaudit.record_broadcast(tmp_path / "c", 1, state(), lr=0.1)
        fedaudit.record_update(tmp_path / "c", 1, 7, state(), kind="weights")
    fedaudit.record_update(tmp_path / "c", 1, 7, {"w": torch.zeros(1)}, kind="weights")
    assert [list(m.tensors()) for m in StoredCapture(tmp_path / "c").messages(1)] == [
        ["w"],
        list(state()),
    ]
    with pytest.raises(UsageError, match="holds another broadcast"):
        fedaudit.record_broadcast(tmp_path / "c", 1, {"w": torch.zeros(1)})
    fedaudit.record_broadcast(tmp_path / "c", 1, {"w": torch.zeros(1)}, client=7)
    stored = StoredCapture(tmp_path / "c")
    assert list(stored.broadcast(1, "7")) == ["w"]
    assert list(stored.broadcast(1, "8")) == list(state())


def test_a_sample_is_uniform_over_clients_and_rounds_and_the_same_for_all(tmp_path: Path) -> None:
    small = {"w": torch.ones(2)}

    def record(folder: str) -> set[tuple[int, str | None]]:
        for round in range(6):
            fedaudit.record_broadcast(tmp_path / folder, round, small, sampled=0.25)
            for client in range(30):  # each in a recording of its own, as processes are
                fedaudit.record_update(tmp_path / folder, round, client, small, kind="delta")
            fedaudit.record_update(
                tmp_path / folder, round, "sum", small, kind="delta", aggregate=True
            )
        stored = StoredCapture(tmp_path / folder)
        assert stored.facts.sampled == 0.25
        found = [m.message for n in stored.rounds() for m in stored.messages(n)]
        assert sum(one.aggregate for one in found) == 6
        return {(one.round, one.client) for one in found if not one.aggregate}

    first = record("c")
    assert 25 < len(first) < 65  # 45 of 180; 3.4 standard deviations
    assert len({client for _, client in first}) > 15
    assert {round for round, _ in first} == set(range(6))
    assert record("c") == first  # whoever goes on with it
    with pytest.raises(UsageError, match=r"sampled = 0\.25"):
        fedaudit.recording(tmp_path / "c", sampled=0.5)
    with pytest.raises(ConfigError, match="sampled"):
        fedaudit.recording(tmp_path / "d", sampled=0)


@pytest.mark.slow
def test_several_processes_record_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, torch, fedaudit\n"
        "for r in range(3):\n"
        "    fedaudit.record_broadcast(sys.argv[1], r, {'w': torch.full((4,), r)}, lr=0.5)\n"
        "    for c in range(5):\n"
        "        t = {'w': torch.full((4,), 10. * c + r)}\n"
        "        fedaudit.record_update(sys.argv[1], r, c, t, kind='weights')\n"
        "        fedaudit.record_update(sys.argv[1], r, f'{sys.argv[2]}', t, kind='weights')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "c")]
    started = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [process.wait(60) for process in started] == [0, 0]
    stored = StoredCapture(tmp_path / "c")
    assert stored.rounds() == (0, 1, 2)
    for number in stored.rounds():
        messages = list(stored.messages(number))
        assert len(messages) == 5 + 2 * 5  # the clients that both name, and five of each own
        for one in messages:
            if one.message.client not in {"a", "b"}:
                expected = 10 * int(one.message.client or 0) + number
                assert torch.equal(one.tensors()["w"], torch.full((4,), float(expected)))
    assert not stored.problems


def test_threads_that_start_a_capture_together_agree(tmp_path: Path) -> None:
    barrier, errors = threading.Barrier(8), []

    def start(number: int) -> None:
        barrier.wait()
        try:
            settings: Keywords = {"lr": 0.1} if number % 2 else {"momentum": 0.9}
            fedaudit.recording(tmp_path / "c", **settings).update(
                1, number, state(), kind="weights"
            )
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    stored = StoredCapture(tmp_path / "c")
    assert (stored.facts.lr, stored.facts.momentum) == (0.1, 0.9)
    assert len(list(stored.messages(1))) == 8


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = fedaudit.recording(tmp_path / "c")

    def full(tensors: object, path: Path, header: object) -> None:
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StorageError, match="the disk is full"):
        record.update(1, "c", state(), kind="weights")
    assert not [p for p in (tmp_path / "c").rglob("*") if p.is_file() and p.name != "capture.json"]


def test_facts_are_checked_and_may_be_added_but_not_changed(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'lr'"):
        fedaudit.recording(tmp_path / "c", lrr=0.1)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="lr"):
        fedaudit.recording(tmp_path / "c", lr=-1)
    with pytest.raises(ConfigError, match="arguments"):
        fedaudit.recording(tmp_path / "c", arguments={"x": float("nan")})
    assert not (tmp_path / "c").exists()
    fedaudit.recording(tmp_path / "c", lr=0.1)
    fedaudit.recording(tmp_path / "c", lr=0.1, momentum=0.9)
    fedaudit.recording(tmp_path / "c")
    with pytest.raises(UsageError, match=r"lr = 0\.1.* says 0\.2"):
        fedaudit.recording(tmp_path / "c", lr=0.2)
    assert StoredCapture(tmp_path / "c").facts == Facts(lr=0.1, momentum=0.9)


def test_keywords_are_the_facts() -> None:
    assert set(Keywords.__annotations__) == set(Facts.__dataclass_fields__)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(UsageError, match="not empty"):
        fedaudit.recording(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        fedaudit.recording(tmp_path / "thesis.tex")
    with pytest.raises(UsageError, match="no folder"):
        StoredCapture(tmp_path / "nothing")
    with pytest.raises(UsageError, match="holds no capture"):
        StoredCapture(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, "without tensors"),
        ({"w": [1.0]}, "'w' is list"),
        ({"w": np.array(["a"])}, "only numbers"),
        ({"w": torch.eye(3).to_sparse()}, "not a dense tensor"),
        ({"w" * 501: torch.zeros(1)}, "longer than 500"),
    ],
)
def test_what_is_no_tensor_is_refused(tmp_path: Path, tensors: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        fedaudit.recording(tmp_path / "c").update(1, "c", tensors, kind="weights")


def test_tied_strided_and_numpy_tensors_are_recorded(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    array = np.arange(4, dtype=">f8")
    array.flags.writeable = False
    sent: dict[str, Any] = {"a": weight, "b": weight, "t": weight.t(), "n": array, "row": weight[1]}
    fedaudit.record_update(tmp_path / "c", 1, "c", sent, kind="gradient")
    (one,) = StoredCapture(tmp_path / "c").messages(1)
    read = one.tensors()
    assert torch.equal(read["a"], weight)
    assert torch.equal(read["b"], weight)
    assert torch.equal(read["t"], weight.t())
    assert torch.equal(read["row"], weight[1])
    assert read["n"].tolist() == [0, 1, 2, 3]


def test_the_manifest_follows_its_schema(tmp_path: Path) -> None:
    fedaudit.recording(tmp_path / "c", model="m:f", image_shape=(3, 8, 8), protections=())
    content = json.loads((tmp_path / "c" / "capture.json").read_text())
    schema = capture_manifest.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "version": 2}, schema)
    fields = message_header.Message.__dataclass_fields__
    assert set(schema["$defs"]["Message"]["properties"]) == set(fields)


def test_another_version_says_so(tmp_path: Path) -> None:
    fedaudit.recording(tmp_path / "c")
    path = tmp_path / "c" / "capture.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UsageError, match=r"version 2.*install a newer"):
        StoredCapture(tmp_path / "c")


def test_a_moved_linked_or_foreign_file_is_a_problem(tmp_path: Path) -> None:
    record = fedaudit.recording(tmp_path / "c")
    record.update(1, "good", state(), kind="weights")
    folder = tmp_path / "c" / "round-000001"
    (good,) = folder.glob("update-*")
    (folder / "update-link.safetensors").symlink_to(good)
    safetensors.torch.save_file(state(), folder / "update-foreign.safetensors")
    (tmp_path / "c" / "round-000002").mkdir()
    (tmp_path / "c" / "round-000002" / "update-moved.safetensors").write_bytes(good.read_bytes())
    (folder / "update-cut.safetensors").write_bytes(good.read_bytes()[:-1])
    stored = StoredCapture(tmp_path / "c")
    assert [m.message.client for n in stored.rounds() for m in stored.messages(n)] == ["good"]
    reasons = {Path(p.file).name: p.reason for p in stored.problems}
    assert "link" in reasons["update-link.safetensors"]
    assert "no message header" in reasons["update-foreign.safetensors"]
    assert "moved" in reasons["update-moved.safetensors"]
    assert "cut off" in reasons["update-cut.safetensors"]
