"""The filter for NVFlare: it changes nothing, and records exactly what crosses the wire."""

import copy
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("nvflare", reason="pip install 'fedaudit[nvflare]'")

from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.fl_constant import FilterKey, ReservedKey
from nvflare.apis.shareable import Shareable

from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.record.nvflare import RecordFilter, _metrics

sys.path.insert(0, str(Path(__file__).parent))
from nvflare_messages import RESULT, TASK, chained, context, message, state, updates


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "capture"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What the filter has warned of since it was last asked."""
    caplog.set_level(logging.WARNING)

    def lines() -> str:
        found = [r.getMessage() for r in caplog.records if "fedaudit" in r.getMessage()]
        caplog.clear()
        return "\n".join(found)

    return lines


@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize(
    ("kind", "ours"), [(DataKind.WEIGHTS, "weights"), (DataKind.WEIGHT_DIFF, "delta")]
)
def test_an_update_passes_as_it_is_and_is_recorded(
    folder: Path, said: Callable[[], str], kind: str, ours: str, as_tensors: bool
) -> None:
    made = chained(RESULT, folder, {"model": "here:Net", "batch_size": 4}, counted="steps")
    data = {k: torch.from_numpy(v) if as_tensors else v for k, v in state(0.1).items()}
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 5, MetaKey.INITIAL_METRICS: {"loss": 1.5}}
    sent = message(data, meta, kind=kind)
    before = copy.deepcopy(sent)
    passed = made.process(sent, context())
    assert passed is sent
    assert passed["DXO"]["meta"] == before["DXO"]["meta"]
    assert passed["__headers__"] == before["__headers__"]
    for name, value in passed["DXO"]["data"].items():
        assert value is data[name]
        assert np.array_equal(value, before["DXO"]["data"][name])
    assert not said()
    (stored,) = updates(folder)
    assert (stored.message.client, stored.message.kind) == ("site-1", ours)
    assert (stored.message.round, stored.message.sign) == (3, 1)
    assert stored.message.examples == 20
    assert stored.message.metrics == {"NUM_STEPS_CURRENT_ROUND": 5, "loss": 1.5}
    assert stored.message.protections == ()
    for name, value in stored.tensors().items():
        assert torch.equal(value, torch.as_tensor(data[name]))
    facts = StoredCapture(folder).facts
    assert (facts.model, facts.framework) == ("here:Net", f"nvflare {nvflare_version()}")
    assert facts.protections is None


def nvflare_version() -> str:
    from importlib.metadata import version

    return version("nvflare")


@pytest.mark.parametrize(
    ("counted", "facts", "examples"),
    [
        (None, {"batch_size": 4}, None),
        ("steps", {}, None),
        ("steps", {"batch_size": 4}, 20),
        ("examples", {}, 5),
    ],
)
def test_what_is_counted_is_never_guessed(
    folder: Path, counted: Any, facts: dict[str, Any], examples: int | None
) -> None:
    made = chained(RESULT, folder, facts, counted)
    made.process(message(state(), {MetaKey.NUM_STEPS_CURRENT_ROUND: 5}), context())
    assert updates(folder)[0].message.examples == examples


def test_a_broadcast_is_kept_once_and_another_one_apart(
    folder: Path, said: Callable[[], str]
) -> None:
    made = chained(TASK, folder)
    shared = state()
    for peer, data in (("site-1", shared), ("site-2", shared), ("site-3", state())):
        made.process(message(data), context(peer, direction=FilterKey.OUT))
    assert [p.name for p in sorted(folder.rglob("*.safetensors"))] == ["broadcast.safetensors"]
    made.process(message(state(2)), context("site-4", direction=FilterKey.OUT))
    capture = StoredCapture(folder)
    assert torch.equal(capture.broadcast(3)["w"], torch.full((2, 3), 1.0))
    theirs = capture.broadcast_message(3, "site-4").tensors()
    assert torch.equal(theirs["w"], torch.full((2, 3), 2.0))
    assert not said()


def test_on_a_client_it_records_the_client_itself(folder: Path) -> None:
    here = context("server", direction=FilterKey.OUT)
    here.set_prop(ReservedKey.IDENTITY_NAME, "site-7", private=False, sticky=False)
    chained(RESULT, folder).process(message(state()), here)
    assert [one.message.client for one in updates(folder)] == ["site-7"]


def test_a_relative_folder_stands_among_the_results_of_the_job(tmp_path: Path) -> None:
    class Engine:
        def get_workspace(self) -> "Engine":
            return self

        def get_run_dir(self, job: str) -> str:
            return str(tmp_path / job)

    here = context()
    here.set_prop(ReservedKey.ENGINE, Engine(), private=True, sticky=False)
    here.set_prop(ReservedKey.RUN_NUM, "job-1", private=False, sticky=False)
    chained(RESULT, Path("capture")).process(message(state()), here)
    assert len(updates(tmp_path / "job-1" / "capture")) == 1


def test_an_encrypted_update_is_a_protection_and_no_tensor_is_tried(
    folder: Path, said: Callable[[], str]
) -> None:
    class Ciphertext:
        def __array__(self, *_: Any) -> Any:
            raise AssertionError("it was read")

    made = chained(RESULT, folder)
    hidden = {MetaKey.PROCESSED_ALGORITHM: "CKKS", MetaKey.PROCESSED_KEYS: {"w": True, "b": True}}
    for peer in ("site-1", "site-2"):
        made.process(message({"w": Ciphertext(), "b": Ciphertext()}, hidden), context(peer))
    assert said().count("2 of 2 tensors are under homomorphic encryption (CKKS)") == 1
    assert StoredCapture(folder).facts.protections == ("homomorphic encryption (CKKS)",)
    assert not list(folder.rglob("*.safetensors"))


def test_layers_that_encryption_leaves_in_clear_are_recorded(
    folder: Path, said: Callable[[], str]
) -> None:
    made = chained(RESULT, folder)
    half = {MetaKey.PROCESSED_ALGORITHM: "CKKS", MetaKey.PROCESSED_KEYS: {"w": True, "b": False}}
    made.process(message({"w": object(), "b": state()["b"]}, half), context())
    assert "1 of 2 tensors" in said()
    (stored,) = updates(folder)
    assert stored.tensors().keys() == {"b"}
    assert "homomorphic encryption (CKKS) of 1 of 2 tensors" in stored.message.protections[0]


def test_quantized_codes_are_not_taken_for_weights(folder: Path, said: Callable[[], str]) -> None:
    made = chained(RESULT, folder)
    codes = {"w": np.zeros((2, 3), np.uint8)}
    made.process(message(codes, {MetaKey.PROCESSED_ALGORITHM: "blockwise8"}), context())
    assert "ModelDequantizer" in said()
    assert not list(folder.rglob("*.safetensors"))
    half = {"w": np.full((2, 3), 0.5, np.float16)}
    made.process(message(half, {MetaKey.PROCESSED_ALGORITHM: "float16"}), context())
    (stored,) = updates(folder)
    assert stored.message.protections == ("quantization (float16)",)
    assert stored.tensors()["w"].dtype == torch.float16


def test_filters_on_the_way_and_further_arrays_are_named(
    folder: Path, said: Callable[[], str]
) -> None:
    meta = {MetaKey.FILTER_HISTORY: ["SVTPrivacy"], "scaffold_c_diff": state()}
    chained(RESULT, folder).process(message(state(), meta), context())
    assert "scaffold_c_diff" in said()
    (stored,) = updates(folder)
    assert stored.message.protections == ("NVFlare filter SVTPrivacy",)


def test_arrays_that_were_left_on_the_disk_are_loaded(folder: Path) -> None:
    class Lazy:
        def materialize(self) -> torch.Tensor:
            return torch.ones(2)

    lazy = Lazy()
    passed = chained(RESULT, folder).process(message({"w": lazy}), context())
    assert passed["DXO"]["data"]["w"] is lazy
    assert torch.equal(updates(folder)[0].tensors()["w"], torch.ones(2))


def both(data: dict[str, Any]) -> dict[str, DXO]:
    return {"a": DXO(DataKind.WEIGHTS, data), "b": DXO(DataKind.WEIGHTS, data)}


@pytest.mark.parametrize(
    ("sent", "peer", "why"),
    [
        (message(state(), round=None), "site-1", "says no round"),
        (message(state()), None, "which client"),
        (message({"w": "text"}), "site-1", "'w' is str"),
        (message(both(state()), kind=DataKind.COLLECTION), "site-1", "a collection"),
    ],
)
def test_what_cannot_be_recorded_is_a_warning(
    folder: Path, said: Callable[[], str], sent: Shareable, peer: str | None, why: str
) -> None:
    content = dict(sent["DXO"]["data"])
    assert chained(RESULT, folder).process(sent, context(peer)) is sent
    assert sent["DXO"]["data"].keys() == content.keys()
    assert all(sent["DXO"]["data"][name] is content[name] for name in content)
    assert why in said()
    assert not list(folder.rglob("*.safetensors"))


def test_a_failing_disk_and_a_filter_outside_a_chain_are_warnings(
    folder: Path, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = RecordFilter(str(folder))
    sent = message(state())
    assert alone.process(sent, context()) is sent
    assert "stands in no filter chain" in said()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("fedaudit.captures.record.recording.write_message", full)
    for made in (chained(RESULT, folder), chained(TASK, folder)):
        assert made.process(sent, context()) is sent
    assert "no space left" in said()


def test_what_svt_privacy_counts_for_a_message_is_recorded() -> None:
    dxo = DXO(DataKind.WEIGHT_DIFF, data={"w": np.zeros(3)})
    dxo.set_meta_prop("svt_privacy_budget", {"epsilon_total": 3.5, "delta": 0.0, "round": None})
    assert _metrics(dxo) == {
        "svt_privacy_budget.epsilon_total": 3.5,
        "svt_privacy_budget.delta": 0.0,
    }
