"""The filter for NVFlare in jobs: as they are exported, and as the simulator runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("nvflare", reason="pip install 'fedaudit[nvflare]'")

from nvflare.apis.dxo import MetaKey
from nvflare.apis.filter import FilterContextKey
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType

from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.captures.record.nvflare import RecordFilter, tap
from fedaudit.core.errors import UnknownNameError, UsageError
from fedaudit.core.shared import Update

sys.path.insert(0, str(Path(__file__).parent))
from nvflare_messages import RESULT, context, message, state, updates

EXAMPLE = Path(__file__).parents[2] / "examples" / "nvflare"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "capture"


def test_wrong_arguments_are_refused_before_the_job_is_sent(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'classes'"):
        RecordFilter(str(folder), {"clases": 40})
    with pytest.raises(UsageError, match="counted"):
        RecordFilter(str(folder), counted="epochs")  # type: ignore[arg-type]
    assert not folder.exists()


class AsRecipe:
    """The two methods of a recipe that `tap` calls, as NVFlare's `Recipe` has them."""

    def __init__(self, job: FedJob) -> None:
        self.job = job

    def add_server_output_filter(self, filter: Any, tasks: Any = None) -> None:
        self.job.to_server(filter, filter_type=FilterType.TASK_DATA, tasks=tasks)

    def add_server_input_filter(self, filter: Any, tasks: Any = None) -> None:
        self.job.to_server(filter, filter_type=FilterType.TASK_RESULT, tasks=tasks)


def test_a_job_holds_the_filter_as_plain_json_and_none_of_our_code(
    tmp_path: Path, folder: Path
) -> None:
    from fedaudit.captures.format.capture_facts import DpClaim

    job = FedJob(name="faces", min_clients=2)
    tap(
        AsRecipe(job),
        folder,
        counted="examples",
        image_shape=(3, 32, 32),
        arguments={"width": 8},
        dp=DpClaim(clip=1.0, noise=0.5),
    )
    job.export_job(str(tmp_path / "jobs"))
    (written,) = (tmp_path / "jobs").rglob("config_fed_server.json")
    assert not list((tmp_path / "jobs").rglob("*.py"))
    config = json.loads(written.read_text())
    assert not folder.exists()
    for chain in ("task_data_filters", "task_result_filters"):
        (entry,) = config[chain]
        (found,) = entry["filters"]
        assert entry["tasks"] == ["train"]
        assert found["path"] == "fedaudit.captures.record.nvflare.RecordFilter"
        built = RecordFilter(**found["args"])
        built.set_prop(FilterContextKey.CHAIN_TYPE, RESULT)
        built.process(message(state(), {MetaKey.NUM_STEPS_CURRENT_ROUND: 5}), context(chain))
    assert [one.message.examples for one in updates(folder)] == [5, 5]
    facts = StoredCapture(folder).facts
    assert (facts.image_shape, facts.arguments) == ((3, 32, 32), {"width": 8})
    assert facts.dp == DpClaim(clip=1.0, noise=0.5)


def simulate(workspace: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NVFLARE_SIMULATOR_WORKSPACE_ROOT": ""}
    command = [sys.executable, str(EXAMPLE / "job.py"), "--workspace", str(workspace), *arguments]
    with workspace.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=EXAMPLE, stdout=log, stderr=log)


def final(workspace: Path) -> dict[str, torch.Tensor]:
    (found,) = workspace.rglob("FL_global_model.pt")
    loaded: dict[str, torch.Tensor] = torch.load(found, weights_only=True)["model"]
    return loaded


@pytest.mark.slow  # test_nvflare has the filter, message by message
def test_the_example_is_simulated_and_captured_and_ends_as_without_the_filter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVFlare's own simulator on real faces, twice; plain PyTorch says what must be recorded."""
    runs = {
        tmp_path / "tapped": simulate(tmp_path / "tapped", str(folder), "--rounds", "1"),
        tmp_path / "plain": simulate(tmp_path / "plain", "--rounds", "1"),
    }
    for workspace, run in runs.items():
        done = run.wait(timeout=240)
        log = workspace.with_suffix(".log").read_text(errors="replace")
        assert done == 0, log[-3000:]
        assert "fedaudit does not record" not in log
    tapped, plain = final(tmp_path / "tapped"), final(tmp_path / "plain")
    assert tapped.keys() == plain.keys()
    for name in tapped:  # NVFlare adds up in the order in which clients answer
        assert torch.allclose(tapped[name], plain[name], rtol=1e-6, atol=1e-7)

    monkeypatch.syspath_prepend(str(EXAMPLE))
    import faces

    captured = list(observations(StoredCapture(folder), model="faces:Net"))
    assert {one.seen.client for one in captured} == {"site-1", "site-2"}
    average = {name: torch.zeros_like(value) for name, value in tapped.items()}
    for number, one in enumerate(sorted(captured, key=lambda one: one.seen.client)):
        net = faces.Net()
        net.load_state_dict(one.seen.before)
        images, labels = faces.load_data(number, 2)
        loss = F.cross_entropy(net(images[:1]), labels[:1])
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {name: value.grad for name, value in net.named_parameters()}
        (update,) = one.seen.shared
        assert isinstance(update, Update)
        for name, value in update.tensors.items():
            assert torch.allclose(-value / 0.1, gradients[name], atol=2e-6)
            average[name] += (one.seen.before[name] + value) / 2
    for name, value in tapped.items():
        assert torch.allclose(value, average[name], atol=1e-6)
    del sys.modules["faces"]
