"""Recorded sums of several clients, and equal updates, which are one."""

import sys
from pathlib import Path

import torch

from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.core.shared import Aggregate

sys.path.insert(0, str(Path(__file__).parent))
from mlp_capture import LR, flat, mlp, photos, record_mlp, trained


def test_identical_updates_are_one_aggregate(tmp_path: Path) -> None:
    """As Flower's SecAgg+ hands them out: everybody's message holds the mean."""
    network = mlp()
    before = network.state_dict()
    gradients, weights = [], []
    for client in range(3):
        after, gradient = trained(network, *photos(1, seed=client))
        gradients.append(flat(gradient))
        weights.append(after)
    counts = (1, 1, 2)
    mean = {
        n: sum(c * w[n].double() for c, w in zip(counts, weights, strict=True)).float() / 4  # type: ignore[union-attr]
        for n in before
    }
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    for client, count in enumerate(counts):
        record.update(1, client, mean, kind="weights", examples=count)
    record.update(1, "alone", weights[0], kind="weights", examples=1)
    captures = list(observations(StoredCapture(tmp_path / "c")))
    assert [c.seen.client for c in captures] == ["aggregate of 3 clients", "alone"]
    (aggregate,) = (s for s in captures[0].seen.shared if isinstance(s, Aggregate))
    assert aggregate.weights == (1.0, 1.0, 2.0)
    expected = -LR * (gradients[0] + gradients[1] + 2 * gradients[2])
    assert torch.allclose(flat(aggregate.tensors), expected, atol=2e-6)
    assert captures[0].seen.batch_size == 3  # one step of one image each
    assert not [s for s in captures[1].seen.shared if isinstance(s, Aggregate)]


def test_a_recorded_sum_of_weights_is_compared_with_as_many_broadcasts(tmp_path: Path) -> None:
    network = mlp()
    before = network.state_dict()
    after = [trained(network, *photos(1, seed=client))[0] for client in range(2)]
    total = {n: 2 * after[0][n] + 3 * after[1][n] for n in before}
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, before)
    record.update(1, "sum", total, kind="weights", aggregate=True, weights=(2, 3))
    (capture,) = observations(StoredCapture(tmp_path / "c"))
    (aggregate,) = capture.seen.shared
    assert isinstance(aggregate, Aggregate)
    expected = {n: total[n] - 5 * before[n] for n in before}
    assert torch.allclose(flat(aggregate.tensors), flat(expected), atol=1e-5)
    assert capture.seen.batch_size == 2  # two clients, one step of one image each


def test_clients_that_did_not_train_are_no_aggregate(tmp_path: Path) -> None:
    record = record_mlp(tmp_path / "c")
    record.broadcast(1, mlp().state_dict())
    for client in range(2):
        record.update(1, client, mlp().state_dict(), kind="weights")
    stored = StoredCapture(tmp_path / "c")
    assert not list(observations(stored))
    assert "nothing to attack" in str(stored.problems[0])
