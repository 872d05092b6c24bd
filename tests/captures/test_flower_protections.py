"""Flower's own protections on real updates: what is seen of them, and what the report says.

Clients run Flower's modifiers in this process; the server runs its strategies and workflows.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("flwr", reason="pip install 'fedaudit[flower]'")

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg as OldFedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg
from nodes import LR, Nodes, client_app, network, older_app, train
from torch import Tensor

import fedaudit
from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.inspect.inspection import Inspection, inspect
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Aggregate
from fedaudit.reports.build import build_report
from fedaudit.reports.results import Finding
from fedaudit.study.jobs import AttackJob, expand
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import open_run
from fedaudit.study.sources import source_of

CLIENTS = 4


@pytest.fixture(autouse=True)
def inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages ask which run they belong to."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def facts_of(norm: str, steps: int) -> dict[str, Any]:
    return {
        "model": "convnet",
        "arguments": {"width": 8, "norm": norm},
        "classes": 5,
        "image_shape": (3, 16, 16),
        "lr": LR,
        "local_steps": steps,
        "batch_size": 4,
    }


def run(
    folder: Path, norm: str, steps: int, *mods: Any, clipping: float | None = None,
    dp: DpClaim | None = None,
) -> Inspection:  # fmt: skip
    """One round of the Message API."""
    grid = fedaudit.tap(Nodes(client_app(norm, steps, *mods), CLIENTS), folder, dp=dp,
                        **facts_of(norm, steps))  # fmt: skip
    strategy: Any = FedAvg(
        fraction_evaluate=0.0, min_available_nodes=CLIENTS, min_train_nodes=CLIENTS
    )
    if clipping is not None:
        strategy = DifferentialPrivacyClientSideFixedClipping(strategy, 0.0, clipping, CLIENTS)
    arrays = ArrayRecord(network(norm).state_dict())
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1)
    return inspect(StoredCapture(folder))


def averaging(state: dict[str, Tensor]) -> Any:
    """A strategy of the older API."""
    return OldFedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=CLIENTS,
        min_available_clients=CLIENTS,
        initial_parameters=ndarrays_to_parameters([v.numpy() for v in state.values()]),
    )


def context_of(strategy: Any, rounds: int) -> Any:
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    config = ServerConfig(num_rounds=rounds)
    return LegacyContext(context=context, config=config, strategy=strategy)


def run_secretly(
    folder: Path, norm: str, steps: int, state: dict[str, Tensor], weight: float, rounds: int = 1
) -> Inspection:
    """The same through SecAgg+, which is of the older API."""
    strategy = averaging(state)
    tapped = fedaudit.tap(strategy, folder, parameter_names=tuple(state), **facts_of(norm, steps))
    legacy = context_of(tapped, rounds)
    secagg = SecAggPlusWorkflow(1.0, 0.5, max_weight=weight)
    DefaultWorkflow(fit_workflow=secagg)(
        Nodes(older_app(norm, steps, secaggplus_mod), CLIENTS), legacy
    )
    return inspect(StoredCapture(folder))


def reported(folder: Path, to: Path) -> dict[str, Finding]:
    """Findings of the report, before any attack is run."""
    with open_run(to, study_of(Request(path=folder)).study):
        pass
    return {finding.title: finding for finding in build_report(to, "none").findings}


def seen_by_attacks(folder: Path) -> Observation:
    study = study_of(Request(path=folder)).study
    cells = [job.cell for job in expand(study) if isinstance(job, AttackJob)]
    cell = next(cell for cell in cells if cell.role == "audit")
    return source_of(study, RunFolder(folder)).capture(cell).seen


def of_name(found: Inspection, name: str) -> Any:
    return next(seen for seen in found.protections if seen.name == name)


def test_secagg_shows_one_aggregate_that_is_the_mean_of_all(tmp_path: Path) -> None:
    state = network("group").state_dict()
    scales = [n for n, v in state.items() if v.dim() == 1 and bool((v == 1).all())]
    state |= {n: 1.002 + 1e-6 * torch.arange(len(state[n])) for n in scales}  # alike, and not cut
    found = run_secretly(tmp_path / "c", "group", 1, state, weight=4.0)
    assert [seen.name for seen in found.protections] == ["aggregate"]
    assert of_name(found, "aggregate").clients == CLIENTS
    seen = seen_by_attacks(tmp_path / "c")
    assert seen.client == f"aggregate of {CLIENTS} clients"
    assert isinstance(seen.shared[0], Aggregate)
    assert seen.batch_size == 4 * CLIENTS
    assert seen.training is not None
    assert seen.training.batch_size == 4 * CLIENTS  # all their batches, in one step
    assert seen.defense is not None
    assert [(d.name, d.settings, d.estimated) for d in seen.defense] == [
        ("secure_aggregation", {}, True)
    ]
    each = [train("group", state, node, 1) for node in range(1, CLIENTS + 1)]
    assert seen.update is not None
    for name, mean in seen.update.tensors.items():
        expected = torch.stack([s[name] - state[name] for s in each]).mean(0)
        assert torch.allclose(mean.float(), expected, atol=1e-5)


def test_a_grid_under_secagg_says_where_the_tap_belongs(tmp_path: Path) -> None:
    state = network("group").state_dict()
    strategy = averaging(state)
    nodes = Nodes(older_app("group", 1, secaggplus_mod), CLIENTS)
    legacy = context_of(strategy, 1)
    with pytest.warns(UserWarning, match="round the strategy instead"):
        DefaultWorkflow(fit_workflow=SecAggPlusWorkflow(1.0, 0.5))(
            fedaudit.tap(nodes, tmp_path / "c"), legacy
        )
    assert not list(StoredCapture(tmp_path / "c").messages(1))


@pytest.mark.parametrize(("weight", "moved"), [(40.0, 56.0), (1000.0, 25.6)])
def test_secagg_corrupts_batch_norm(tmp_path: Path, weight: float, moved: float) -> None:
    """Ten steps are cut to 8 where weights are 1; and four counters are added up, not averaged."""
    state = network("batch").state_dict()
    state = {n: v + 100 * n.endswith("running_var") for n, v in state.items()}
    found = run_secretly(tmp_path / "c", "batch", 10, state, weight)
    counters = of_name(found, "corrupted counters")
    assert counters.fault
    assert counters.value == pytest.approx(moved, rel=1e-4)
    cut = [seen.value for seen in found.protections if seen.name == "clipped values"]
    assert cut == ([pytest.approx(8.0)] if weight == 40 else [])
    names = {seen.name for seen in found.protections}
    assert not names & {"counters in the clipping norm", "buffers in clear", "clipping"}
    assert not found.found_out
    titles = reported(tmp_path / "c", tmp_path / "run")
    assert any("batch-norm counters" in title for title in titles)


def test_counters_inside_the_clipping_norm_reach_the_report(tmp_path: Path) -> None:
    """Flower counts them in the norm and sends them whole: the numbers alone do not show it."""
    found = run(tmp_path / "c", "batch", 10, fixedclipping_mod, clipping=0.5)
    assert found.facts["dp"]["clip"] == 0.5  # as the server sent it to its clients
    fault = of_name(found, "counters in the clipping norm")
    assert fault.fault
    assert fault.value < 0.05  # of 0.5: the counters have the rest
    raw = train("batch", network("batch").state_dict(), 1, 10)
    assert all(float(v) == 10 for n, v in raw.items() if n.endswith("num_batches_tracked"))
    sent = next(StoredCapture(tmp_path / "c").messages(1)).tensors()
    assert all(float(v) == 10 for n, v in sent.items() if n.endswith("num_batches_tracked"))
    assert "buffers in clear" not in {seen.name for seen in found.protections}  # clipped as well
    titles = reported(tmp_path / "c", tmp_path / "run")
    (title,) = (t for t in titles if "counts batch-norm counters" in t)
    assert titles[title].severity == "medium"
    assert "10, which is a norm of 28.3" in titles[title].evidence
    facts = seen_by_attacks(tmp_path / "c").defense
    assert facts is not None
    assert (facts[0].name, facts[0].settings) == ("clipping", {"max_norm": 0.5})
    assert not facts[0].estimated


def test_a_clipped_update_without_batch_norm_is_told_with_its_bound(tmp_path: Path) -> None:
    found = run(tmp_path / "c", "group", 1, fixedclipping_mod, clipping=0.05)
    (seen,) = found.protections
    assert (seen.name, seen.fault) == ("clipping", False)
    assert seen.value == pytest.approx(0.05, rel=1e-3)


def test_clipping_that_nobody_told_the_server_is_estimated(tmp_path: Path) -> None:
    def clip(message: Any, context: Any, call_next: Any) -> Any:
        message.content["config"]["clipping_norm"] = 0.05
        return fixedclipping_mod(message, context, call_next)

    run(tmp_path / "c", "group", 1, clip)
    facts = seen_by_attacks(tmp_path / "c").defense
    assert facts is not None
    assert [(d.name, d.estimated) for d in facts] == [("clipping", True)]
    assert facts[0].settings["max_norm"] == pytest.approx(0.05, rel=1e-3)


def test_a_sensitivity_apart_from_the_clipping_norm_reaches_the_report(tmp_path: Path) -> None:
    mod = LocalDpMod(clipping_norm=1.0, sensitivity=0.01, epsilon=1.0, delta=1e-5)
    claim = DpClaim(clip=1.0, sensitivity=0.01, epsilon=1.0, delta=1e-5, where="client")
    run(tmp_path / "c", "group", 1, mod, dp=claim)
    titles = reported(tmp_path / "c", tmp_path / "run")
    (title,) = (t for t in titles if "the stated ε is not met" in t)
    assert titles[title].severity == "high"
    assert "100 times too weak" in titles[title].evidence


def test_noise_of_local_dp_is_seen_without_being_stated(tmp_path: Path) -> None:
    mod = LocalDpMod(clipping_norm=1.0, sensitivity=1.0, epsilon=10.0, delta=1e-5)
    expected = 0.4844805262605389  # 1 · √(2 ln(1.25 / 1e-5)) / 10
    found = run(tmp_path / "c", "group", 1, mod)
    assert of_name(found, "noise").value == pytest.approx(expected, rel=0.05)
    facts = seen_by_attacks(tmp_path / "c").defense
    assert facts is not None
    assert [(d.name, d.estimated) for d in facts] == [("gaussian_noise", True)]
    assert facts[0].settings["std"] == pytest.approx(expected, rel=0.05)
    assert "Seen in the updates: noise" in reported(tmp_path / "c", tmp_path / "run")


def test_local_dp_adds_noise_to_running_statistics_as_well(tmp_path: Path) -> None:
    """Counters stay whole, being single numbers: no sign that buffers are sent in clear."""
    mod = LocalDpMod(clipping_norm=1.0, sensitivity=1.0, epsilon=10.0, delta=1e-5)
    found = run(tmp_path / "c", "batch", 1, mod)
    assert {seen.name for seen in found.protections} == {"noise"}


def test_buffers_outside_the_mechanism_reach_the_report(tmp_path: Path) -> None:
    """The usual way round counters in the norm: only parameters are protected."""

    def parameters_only(message: Any, context: Any, call_next: Any) -> Any:
        reply = call_next(message, context)
        arrays = reply.content["arrays"].to_torch_state_dict()
        generator = torch.Generator().manual_seed(context.node_id)
        noised = {
            n: v
            if "running" in n or "num_" in n
            else v + 0.5 * torch.randn(v.shape, generator=generator)
            for n, v in arrays.items()
        }
        reply.content["arrays"] = ArrayRecord(noised)
        return reply

    found = run(tmp_path / "c", "batch", 1, parameters_only)
    assert {"noise", "buffers in clear"} <= {seen.name for seen in found.protections}
    titles = reported(tmp_path / "c", tmp_path / "run")
    (title,) = (t for t in titles if "sent in clear" in t)
    assert titles[title].severity == "medium"
