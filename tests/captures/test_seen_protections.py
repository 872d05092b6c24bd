"""Protections and their known faults, on updates of a real network that were really so treated."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fedaudit
from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.inspect.inspection import Inspection, inspect
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build

Treat = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]
CLIENTS = 5


def updates(norm: str, steps: int = 1) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """What a server sent, and the deltas of some clients, buffers and counters included."""
    spec = ModelSpec("convnet", {"classes": 5, "image_size": 16, "width": 8, "norm": norm})
    network = build(spec)
    before = {n: v.clone() for n, v in network.state_dict().items()}
    deltas = []
    for client in range(CLIENTS):
        generator = torch.Generator().manual_seed(client)
        network.load_state_dict(before)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        for _ in range(steps):
            images = torch.rand(4, 3, 16, 16, generator=generator)
            labels = torch.randint(5, (4,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        after = network.state_dict()
        deltas.append({n: (after[n].double() - before[n].double()).float() for n in before})
    return before, deltas


def inspected(
    folder: Path, before: Mapping[str, Tensor], deltas: list[dict[str, Tensor]], treat: Treat,
    dp: DpClaim | None = None,
) -> Inspection:  # fmt: skip
    """The inspection of a capture in which every client sends `before` + its treated delta."""
    record = fedaudit.recording(folder, dp=dp)
    record.broadcast(1, before)
    for client, delta in enumerate(deltas):
        generator = torch.Generator().manual_seed(100 + client)
        treated = treat(dict(delta), generator)
        sent = {n: before[n].double() + treated[n].double() for n in treated}
        record.update(1, client, {n: v.float() for n, v in sent.items()}, kind="weights")
    return inspect(StoredCapture(folder))


def names(found: Inspection) -> set[str]:
    return {seen.name for seen in found.protections}


def evidence(found: Inspection, name: str) -> str:
    return next(seen.evidence for seen in found.protections if seen.name == name)


def norm_of(delta: Mapping[str, Tensor]) -> float:
    return float(torch.cat([v.flatten().double() for v in delta.values()]).norm())


def clipped(bound: float) -> Treat:
    """All that is sent counts in the norm, as Flower's client-side clipping has it."""

    def treat(delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        scale = min(1.0, bound / norm_of(delta))
        return {n: v * scale for n, v in delta.items()}

    return treat


def noised(deviation: float) -> Treat:
    def treat(delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {
            n: v + deviation * torch.randn(v.shape, generator=generator) for n, v in delta.items()
        }

    return treat


def pruned(delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    del generator
    return {n: torch.where(v.abs() >= v.abs().quantile(0.9), v, 0.0) for n, v in delta.items()}


def same(delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    del generator
    return delta


def test_an_undefended_round_shows_nothing(tmp_path: Path) -> None:
    before, deltas = updates("group")
    found = inspected(tmp_path / "c", before, deltas, same)
    assert names(found) == set()
    assert found.anomalies == ()
    (summary,) = found.rounds
    assert summary.norm is not None
    norms = sorted(norm_of(delta) for delta in deltas)
    assert summary.norm == pytest.approx((norms[0], norms[2], norms[-1]), rel=1e-4)


def test_clipping_is_seen_with_its_bound(tmp_path: Path) -> None:
    before, deltas = updates("group")
    bound = min(norm_of(delta) for delta in deltas) / 2
    found = inspected(tmp_path / "c", before, deltas, clipped(bound))
    assert names(found) == {"clipping"}
    assert found.protections[0].value == pytest.approx(bound, rel=1e-3)
    assert found.protections[0].clients == CLIENTS


def test_noise_is_seen_with_its_deviation_and_not_where_the_update_stands_out(
    tmp_path: Path,
) -> None:
    before, deltas = updates("group")
    found = inspected(tmp_path / "much", before, deltas, noised(0.5))
    assert names(found) == {"noise"}
    assert found.protections[0].value == pytest.approx(0.5, rel=0.1)
    assert "noise" not in names(inspected(tmp_path / "less", before, deltas, noised(1e-4)))


def test_pruning_is_seen_with_its_share(tmp_path: Path) -> None:
    found = inspected(tmp_path / "c", *updates("group"), pruned)
    assert "sparsity" in names(found)
    (seen,) = (s for s in found.protections if s.name == "sparsity")
    assert seen.value == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("levels", [2, 16])
def test_quantized_gradients_are_seen_with_their_levels(tmp_path: Path, levels: int) -> None:
    before, deltas = updates("group")
    record = fedaudit.recording(tmp_path / "c")
    record.broadcast(1, before)
    for client, delta in enumerate(deltas):
        sent = {}
        for name, value in delta.items():
            top = value.abs().max().clamp_min(1e-9)
            steps = ((value / top + 1) / 2 * (levels - 1)).round()
            sent[name] = (steps / (levels - 1) * 2 - 1) * top
        record.update(1, client, sent, kind="gradient")
    found = inspect(StoredCapture(tmp_path / "c"))
    (seen,) = (s for s in found.protections if s.name == "quantization")
    assert seen.value is not None
    assert 2 <= seen.value <= levels


def test_half_precision_is_seen(tmp_path: Path) -> None:
    before, deltas = updates("group")
    record = fedaudit.recording(tmp_path / "c")
    record.broadcast(1, before)
    for client, delta in enumerate(deltas):
        record.update(1, client, {n: v.half() for n, v in delta.items()}, kind="delta")
    assert "16 bits" in evidence(inspect(StoredCapture(tmp_path / "c")), "quantization")


def test_counters_inside_the_clipping_norm_are_a_fault(tmp_path: Path) -> None:
    """Flower's client-side clipping: ten steps of ten counters leave hardly any update."""
    before, deltas = updates("batch", steps=10)
    found = inspected(tmp_path / "c", before, deltas, clipped(0.5))
    assert {"clipping", "counters in the clipping norm"} <= names(found)
    (fault,) = (s for s in found.protections if s.name == "counters in the clipping norm")
    assert fault.fault
    assert "buffers in clear" not in names(found)
    assert fault.value is not None
    assert fault.value < 0.25  # what the clipping left of the parameters' norm


def test_whole_counters_are_no_fault_even_where_the_server_averages_them(tmp_path: Path) -> None:
    before, deltas = updates("batch", steps=3)
    averaged = {n: v + 0.5 if "num_batches" in n else v for n, v in before.items()}
    record = fedaudit.recording(tmp_path / "c")
    record.broadcast(2, averaged)
    for client, delta in enumerate(deltas):
        sent = {n: before[n] + v for n, v in delta.items()}
        record.update(2, client, sent, kind="weights")
    found = inspect(StoredCapture(tmp_path / "c"))
    assert names(found) == {"buffers in clear"}
    assert not found.protections[0].fault  # nothing is claimed to be protected


def test_buffers_beside_protected_parameters_are_a_fault(tmp_path: Path) -> None:
    def treat(delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        drawn = noised(0.5)(delta, generator)
        return {n: v if "running" in n or "num_" in n else drawn[n] for n, v in delta.items()}

    before, deltas = updates("batch")
    found = inspected(tmp_path / "c", before, deltas, treat, DpClaim(clip=1, noise=0.5))
    assert {"noise", "buffers in clear"} <= names(found)
    assert next(s for s in found.protections if s.name == "buffers in clear").fault


def test_a_sensitivity_below_the_clipping_norm_is_a_fault(tmp_path: Path) -> None:
    before, deltas = updates("group")
    claim = DpClaim(clip=10.0, sensitivity=1.0)
    found = inspected(tmp_path / "bad", before, deltas, same, claim)
    assert "10 times too weak" in evidence(found, "inconsistent sensitivity")
    fine = inspected(tmp_path / "ok", before, deltas, same, DpClaim(clip=1.0, sensitivity=1.0))
    assert "inconsistent sensitivity" not in names(fine)


def test_noise_that_is_claimed_and_missing_is_a_fault(tmp_path: Path) -> None:
    before, deltas = updates("group")
    claim = DpClaim(clip=1.0, noise=1.0, unit="client", where="client")
    found = inspected(tmp_path / "bad", before, deltas, clipped(1.0), claim)
    assert "less noise than claimed" in names(found)

    def both(delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return noised(1.0)(clipped(1.0)(delta, generator), generator)

    found = inspected(tmp_path / "ok", before, deltas, both, claim)
    assert "less noise than claimed" not in names(found)
    assert "noise" in names(found)


def test_missing_and_frozen_layers_are_named(tmp_path: Path) -> None:
    def treat(delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        kept = {n: v for n, v in delta.items() if not n.startswith("head.")}
        return {n: v * 0 if n.startswith("body.1.") else v for n, v in kept.items()}

    found = inspected(tmp_path / "c", *updates("group"), treat)
    assert names(found) == {"missing layers", "frozen layers"}
    assert "'head.weight'" in evidence(found, "missing layers")
    assert "'body.1.weight'" in evidence(found, "frozen layers")


def test_masked_integers_are_told_as_such(tmp_path: Path) -> None:
    before, deltas = updates("group")
    record = fedaudit.recording(tmp_path / "c")
    record.broadcast(1, before)
    for client, delta in enumerate(deltas):
        sent = {n: torch.randint(2**31, v.shape) for n, v in delta.items()}
        record.update(1, client, sent, kind="delta")
    assert names(inspect(StoredCapture(tmp_path / "c"))) == {"encrypted or masked"}


def test_identical_updates_are_an_aggregate(tmp_path: Path) -> None:
    before, deltas = updates("group")
    found = inspected(tmp_path / "c", before, [deltas[0]] * 4, same)
    assert "aggregate" in names(found)
    assert "4 clients" in evidence(found, "aggregate")
    assert "clipping" not in names(found)  # four equal norms are one update


def test_counters_tell_the_local_steps_or_contradict_them(tmp_path: Path) -> None:
    before, deltas = updates("batch", steps=3)
    found = inspected(tmp_path / "c", before, deltas, same)
    assert found.found_out == ("local_steps = 3 (every batch-norm counter moved by 3)",)
    assert not found.anomalies
    fedaudit.recording(tmp_path / "c", local_steps=1)
    found = inspect(StoredCapture(tmp_path / "c"))
    assert not found.found_out
    assert "counters moved by 3" in found.anomalies[0].what


def test_odd_updates_are_told_by_client(tmp_path: Path) -> None:
    before, deltas = updates("group")
    first = next(iter(before))
    deltas[0] = {n: v * 1000 for n, v in deltas[0].items()}
    deltas[1] = {n: v * 0 for n, v in deltas[1].items()}
    deltas[2][first] = deltas[2][first] * float("nan")
    deltas[3][first] = deltas[3][first] * 0
    found = inspected(tmp_path / "c", before, deltas, same)
    told = {a.client: a.what for a in found.anomalies}
    assert "far above the median" in told["0"]
    assert "did not train" in told["1"]
    assert f"{first!r} holds NaN" in told["2"]
    assert f"{first!r} is all zeros" in told["3"]
    assert "4" not in told
